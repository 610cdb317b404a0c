//! From where a vault may be called.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::{fault::Fault, id::ResourceId, inbound::contains};

/// Most entries of `ipRules`, and of `virtualNetworkRules`.
const MAX_RULES: usize = 200;

/// Who calls, as far as the network is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The platform itself, which keeps endpoint keys and looks up secrets for deployments: a trusted service.
    Platform,
    /// Somebody with an approved private way to this very vault.
    Private,
    /// Somebody at an address.
    Address(IpAddr),
}

/// The rule that keeps a caller out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Public network access is disabled.
    PublicDisabled,
    /// `defaultAction` is `Deny`, and no rule names the caller.
    DefaultDeny,
}

/// A vault's network rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRules {
    public_disabled: bool,
    deny: bool,
    bypass_services: bool,
    addresses: Vec<IpNet>,
    subnets: Vec<ResourceId>,
}

impl NetworkRules {
    /// Reads a vault's properties. What can't be read opens nothing: it was checked when it was written.
    #[must_use]
    pub fn from_properties(properties: &Value) -> Self {
        let access = properties["publicNetworkAccess"].as_str().unwrap_or_default();
        let acls = &properties["networkAcls"];
        let is = |key: &str, word: &str| acls[key].as_str().is_some_and(|text| text.eq_ignore_ascii_case(word));
        let none = acls.is_null();
        let entries = |list: &str, key: &str| -> Vec<String> {
            let all = acls[list].as_array().into_iter().flatten();
            all.filter_map(|entry| entry[key].as_str().map(str::to_owned)).collect()
        };
        Self {
            public_disabled: access.eq_ignore_ascii_case("Disabled"),
            deny: !none && !is("defaultAction", "Allow"),
            bypass_services: none || is("bypass", "AzureServices"),
            addresses: entries("ipRules", "value").iter().filter_map(|text| prefix(text)).collect(),
            subnets: entries("virtualNetworkRules", "id").iter().filter_map(|id| ResourceId::parse(id).ok()).collect(),
        }
    }

    /// The subnets whose callers are let in; whoever checks an address brings their prefixes.
    #[must_use]
    pub fn subnets(&self) -> &[ResourceId] {
        &self.subnets
    }

    /// Whether the caller is let in. `subnet_prefixes` are those of [`NetworkRules::subnets`], as they are written.
    ///
    /// # Errors
    /// The rule that keeps it out.
    pub fn check(&self, caller: Caller, subnet_prefixes: &[String]) -> Result<(), Refused> {
        let address = match caller {
            Caller::Private => return Ok(()),
            Caller::Platform if self.bypass_services => return Ok(()),
            Caller::Platform => None,
            Caller::Address(address) => Some(address.to_canonical()),
        };
        if self.public_disabled {
            return Err(Refused::PublicDisabled);
        }
        let subnets: Vec<IpNet> = subnet_prefixes.iter().filter_map(|text| prefix(text)).collect();
        let named = address.is_some_and(|one| contains(&self.addresses, one) || contains(&subnets, one));
        if self.deny && !named { Err(Refused::DefaultDeny) } else { Ok(()) }
    }
}

/// Network rules as they are kept, from those given: words in their canonical spelling, everything checked. Null gives
/// the rules of a vault that says nothing: open to all.
///
/// # Errors
/// `BadRequest` naming what is wrong.
pub fn checked_rules(given: &Value) -> Result<Value, Fault> {
    let bad = |field: &str, why: String| Err(Fault::invalid("BadRequest", why).at(format!("networkAcls.{field}")));
    let empty = Map::new();
    let acls = match given {
        Value::Null => &empty,
        Value::Object(map) => map,
        _ => return bad("", "'networkAcls' must be an object.".to_owned()),
    };
    let word = |key: &str, words: [&'static str; 2]| match acls.get(key) {
        None | Some(Value::Null) => Ok(words[0]),
        Some(value) => {
            let given = value.as_str().unwrap_or_default();
            words.into_iter().find(|word| word.eq_ignore_ascii_case(given)).ok_or_else(|| {
                let shown: String = value.to_string().chars().take(60).collect();
                let message = format!("{key} is {shown}; give {} or {}.", words[0], words[1]);
                Fault::invalid("BadRequest", message).at(format!("networkAcls.{key}"))
            })
        }
    };
    let (bypass, action) = (word("bypass", ["AzureServices", "None"])?, word("defaultAction", ["Allow", "Deny"])?);
    let list = |key: &str| match acls.get(key) {
        None | Some(Value::Null) => Ok(&[][..]),
        Some(Value::Array(entries)) if entries.len() <= MAX_RULES => Ok(entries.as_slice()),
        Some(_) => {
            let message = format!("{key} must be a list of at most {MAX_RULES} rules.");
            Err(Fault::invalid("BadRequest", message).at(format!("networkAcls.{key}")))
        }
    };
    let (mut addresses, mut networks) = (Vec::new(), Vec::new());
    for rule in list("ipRules")? {
        let text = rule["value"].as_str().unwrap_or_default();
        let Some(net) = prefix(text) else {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
            let why = format!("'{shown}' is no address range. Give one such as 203.0.113.0/24, or an address.");
            return bad("ipRules", why);
        };
        let single = net.prefix_len() == net.max_prefix_len() && !text.contains('/');
        let shown = if single { net.addr().to_string() } else { net.to_string() };
        addresses.push(json!({"value": if single { format!("{shown}/{}", net.prefix_len()) } else { shown }}));
    }
    for rule in list("virtualNetworkRules")? {
        let id = rule["id"].as_str().and_then(|id| ResourceId::parse(id).ok());
        let Some(id) = id.filter(|id| id.is_type("Microsoft.Network/virtualNetworks/subnets")) else {
            return bad("virtualNetworkRules", "A virtual network rule needs the id of a subnet.".to_owned());
        };
        networks.push(json!({"id": id.as_str(), "ignoreMissingVnetServiceEndpoint": false}));
    }
    addresses.dedup();
    Ok(json!({
        "bypass": bypass,
        "defaultAction": action,
        "ipRules": addresses,
        "virtualNetworkRules": networks,
    }))
}

fn prefix(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let mapped = match net {
        IpNet::V6(net) if net.prefix_len() >= 96 => {
            net.addr().to_ipv4_mapped().map(|addr| (addr, net.prefix_len() - 96))
        }
        _ => None,
    };
    let unmapped = mapped.and_then(|(addr, length): (Ipv4Addr, u8)| IpNet::new(addr.into(), length).ok());
    Some(unmapped.unwrap_or(net).trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_let_in() {
        let deny =
            json!({"bypass": "AzureServices", "defaultAction": "Deny", "ipRules": [{"value": "203.0.113.0/24"}]});
        let closed = json!({"bypass": "None", "defaultAction": "Deny"});
        let caller = |text: &str| Caller::Address(text.parse().unwrap());
        let (default_deny, disabled) = (Err(Refused::DefaultDeny), Err(Refused::PublicDisabled));
        for (acls, access, caller, expected) in [
            (json!(null), "Enabled", caller("198.51.100.1"), Ok(())),
            (json!(null), "Enabled", Caller::Platform, Ok(())),
            (deny.clone(), "Enabled", caller("203.0.113.7"), Ok(())),
            (deny.clone(), "Enabled", caller("::ffff:203.0.113.7"), Ok(())),
            (deny.clone(), "Enabled", caller("198.51.100.1"), default_deny),
            (deny.clone(), "Enabled", caller("10.1.0.9"), Ok(())),
            (deny.clone(), "Enabled", Caller::Platform, Ok(())),
            (deny.clone(), "Disabled", caller("203.0.113.7"), disabled),
            (deny.clone(), "disabled", Caller::Platform, Ok(())),
            (deny, "Disabled", Caller::Private, Ok(())),
            (closed.clone(), "Enabled", Caller::Platform, default_deny),
            (closed.clone(), "Disabled", Caller::Platform, disabled),
            (closed.clone(), "Enabled", Caller::Private, Ok(())),
            (closed, "Enabled", caller("203.0.113.7"), default_deny),
            (json!({"bypass": "None", "defaultAction": "Allow"}), "Enabled", Caller::Platform, Ok(())),
            (json!({"bypass": "None", "defaultAction": "Allow"}), "Disabled", Caller::Platform, disabled),
            (json!({"defaultAction": "Deny", "ipRules": [{"value": "nonsense"}]}), "", caller("1.2.3.4"), default_deny),
            (json!({"defaultAction": 7}), "", caller("1.2.3.4"), default_deny),
        ] {
            let rules = NetworkRules::from_properties(&json!({"networkAcls": acls, "publicNetworkAccess": access}));
            let subnet = ["10.1.0.0/24".to_owned()];
            assert_eq!(rules.check(caller, &subnet), expected, "{acls} {access} {caller:?}");
        }
    }

    #[test]
    fn what_is_kept() {
        let subnet = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/n/subnets/a";
        let kept = checked_rules(&json!({"bypass": "none", "defaultAction": "deny",
            "ipRules": [{"value": "10.0.0.7"}, {"value": "10.1.2.3/16"}], "virtualNetworkRules": [{"id": subnet}]}));
        assert_eq!(
            kept.unwrap(),
            json!({"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "10.0.0.7/32"}, {"value": "10.1.0.0/16"}],
                "virtualNetworkRules": [{"id": subnet, "ignoreMissingVnetServiceEndpoint": false}]})
        );
        assert_eq!(checked_rules(&Value::Null).unwrap()["defaultAction"], "Allow");
        let many = vec![json!({"value": "10.0.0.1"}); MAX_RULES + 1];
        for bad in [
            json!([]),
            json!({"bypass": "Logging"}),
            json!({"defaultAction": 1}),
            json!({"ipRules": {}}),
            json!({"ipRules": ["10.0.0.1"]}),
            json!({"ipRules": [{"value": "10.0.0.0/33"}]}),
            json!({"ipRules": many}),
            json!({"virtualNetworkRules": [{"id": "/subscriptions/s"}]}),
        ] {
            assert!(checked_rules(&bad).is_err(), "{bad}");
        }
    }
}
