//! `keyvault network-rule …`.

use serde_json::{Value, json};

use super::{find, id_of, put, shown};
use crate::{
    commands::{Found, network::checked},
    failure::Failure,
    grammar::{NetworkRuleArgs, NetworkRuleCommand},
    session::{Session, segment},
};

/// The two lists of rules, and what a rule of each holds.
const LISTS: [(&str, &str); 2] = [("ipRules", "value"), ("virtualNetworkRules", "id")];

pub(super) async fn run(command: NetworkRuleCommand, session: &Session) -> Found {
    match command {
        NetworkRuleCommand::List(name) => Ok(find(session, &name).await?["properties"]["networkAcls"].take().into()),
        NetworkRuleCommand::Add(args) => change(args, session, true).await,
        NetworkRuleCommand::Remove(args) => change(args, session, false).await,
    }
}

async fn change(args: NetworkRuleArgs, session: &Session, add: bool) -> Found {
    let mut vault = find(session, &args.name).await?;
    let id = id_of(&vault)?;
    let group = id.split("/providers/").next().unwrap_or_default().to_owned();
    let subnet = args.subnet.as_deref().map(|one| self::subnet(&group, args.vnet_name.as_deref(), one)).transpose()?;
    let wanted = [args.ip_address.unwrap_or_default(), subnet.into_iter().collect()];
    for ((list, key), wanted) in LISTS.into_iter().zip(wanted) {
        let there = &mut vault["properties"]["networkAcls"][list];
        let mut rules = there.as_array().cloned().unwrap_or_default();
        for one in wanted {
            let is = |rule: &Value| rule[key].as_str().is_some_and(|text| same(text, &one));
            match (add, rules.iter().position(is)) {
                (true, None) => rules.push(json!({ key: one })),
                (true, Some(_)) => {}
                (false, Some(at)) => drop(rules.remove(at)),
                (false, None) => {
                    return Err(Failure::not_found(format!("The vault '{}' has no rule for '{one}'.", args.name.name)));
                }
            }
        }
        *there = rules.into();
    }
    Ok(shown(put(session, vault).await?).into())
}

/// Whether two rules are about the same addresses or subnet, however they are written.
fn same(left: &str, right: &str) -> bool {
    let plain = |text: &str| text.trim().trim_end_matches("/32").trim_end_matches("/128").to_ascii_lowercase();
    plain(left) == plain(right)
}

/// The id of a subnet: an id already, a name with its network's, or NETWORK/SUBNET.
pub(super) fn subnet(group: &str, network: Option<&str>, given: &str) -> Result<String, Failure> {
    if given.starts_with('/') {
        return checked(given);
    }
    let (network, name) = match (network, given.split_once('/')) {
        (Some(network), _) => (network, given),
        (None, Some((network, name))) => (network, name),
        (None, None) => {
            return Err(Failure::usage("The subnet's network is not named: give --vnet-name, or the subnet's id."));
        }
    };
    let network = segment(network);
    Ok(format!("{group}/providers/Microsoft.Network/virtualNetworks/{network}/subnets/{}", segment(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_the_same_however_they_are_written() {
        for (left, right, expected) in [
            ("10.0.0.7/32", "10.0.0.7", true),
            ("10.0.0.7", " 10.0.0.7/32", true),
            ("fd00::1/128", "FD00::1", true),
            ("10.0.0.0/24", "10.0.0.0", false),
        ] {
            assert_eq!(same(left, right), expected, "{left} {right}");
        }
        let group = "/subscriptions/s/resourceGroups/g";
        let expected = format!("{group}/providers/Microsoft.Network/virtualNetworks/n/subnets/a");
        for (network, given) in [(Some("n"), "a"), (None, "n/a"), (None, expected.as_str())] {
            assert_eq!(subnet(group, network, given).unwrap(), expected, "{given}");
        }
        assert!(subnet(group, None, "a").is_err());
    }
}
