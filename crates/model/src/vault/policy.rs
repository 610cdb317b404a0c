//! Access policies: what a vault's own list lets a principal do, when roles don't decide.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::fault::Fault;

/// Most access policies of one vault.
const MAX_POLICIES: usize = 1024;

/// What may be done with secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Read a value.
    Get,
    /// See which secrets and versions there are.
    List,
    /// Make a secret or a new version.
    Set,
    /// Change what is said about a version; access policies count it as setting.
    Update,
    /// Remove a secret.
    Delete,
}

impl Permission {
    /// The word in an access policy.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Set | Self::Update => "set",
            Self::Delete => "delete",
        }
    }

    /// The data action that roles allow.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Get => "Microsoft.KeyVault/vaults/secrets/getSecret/action",
            Self::List => "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
            Self::Set => "Microsoft.KeyVault/vaults/secrets/setSecret/action",
            Self::Update => "Microsoft.KeyVault/vaults/secrets/update/action",
            Self::Delete => "Microsoft.KeyVault/vaults/secrets/delete",
        }
    }
}

/// The words that an access policy may hold for each kind of object.
pub const PERMISSIONS: [(&str, &[&str]); 4] = [
    (
        "keys",
        &[
            "all",
            "encrypt",
            "decrypt",
            "wrapKey",
            "unwrapKey",
            "sign",
            "verify",
            "get",
            "list",
            "create",
            "update",
            "import",
            "delete",
            "backup",
            "restore",
            "recover",
            "purge",
            "release",
            "rotate",
            "getrotationpolicy",
            "setrotationpolicy",
        ],
    ),
    ("secrets", &["all", "get", "list", "set", "delete", "backup", "restore", "recover", "purge"]),
    (
        "certificates",
        &[
            "all",
            "get",
            "list",
            "delete",
            "create",
            "import",
            "update",
            "managecontacts",
            "getissuers",
            "listissuers",
            "setissuers",
            "deleteissuers",
            "manageissuers",
            "recover",
            "purge",
            "backup",
            "restore",
        ],
    ),
    (
        "storage",
        &[
            "all",
            "get",
            "list",
            "delete",
            "set",
            "update",
            "regeneratekey",
            "recover",
            "purge",
            "backup",
            "restore",
            "setsas",
            "listsas",
            "getsas",
            "deletesas",
        ],
    ),
];

/// Whether one of the vault's access policies lets the principal with this object id do it.
#[must_use]
pub fn policy_allows(properties: &Value, object_id: Uuid, permission: Permission) -> bool {
    let policies = properties["accessPolicies"].as_array().into_iter().flatten();
    let own = policies.filter(|policy| policy["objectId"].as_str().and_then(|id| id.parse().ok()) == Some(object_id));
    own.flat_map(|policy| policy["permissions"]["secrets"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .any(|word| word.eq_ignore_ascii_case(permission.word()) || word.eq_ignore_ascii_case("all"))
}

/// Access policies as they are kept, from those given; null is none.
///
/// # Errors
/// `BadRequest` naming what is wrong.
pub fn checked_policies(given: &Value, tenant: Uuid) -> Result<Value, Fault> {
    let bad = |why: String| Fault::invalid("BadRequest", why).at("accessPolicies");
    let policies = match given {
        Value::Null => return Ok(json!([])),
        Value::Array(policies) if policies.len() <= MAX_POLICIES => policies,
        _ => return Err(bad(format!("'accessPolicies' must be a list of at most {MAX_POLICIES} policies."))),
    };
    policies.iter().map(|policy| checked(policy, tenant)).collect::<Result<Vec<_>, _>>().map(Value::Array).map_err(bad)
}

fn checked(policy: &Value, tenant: Uuid) -> Result<Value, String> {
    let object: Option<Uuid> = policy["objectId"].as_str().and_then(|id| id.parse().ok());
    let object = object.ok_or("An access policy needs 'objectId', the object id (a GUID) of a principal.")?;
    if let Some(given) = policy["tenantId"].as_str().filter(|given| !given.eq_ignore_ascii_case(&tenant.to_string())) {
        let shown: String = given.chars().take(60).collect();
        return Err(format!("An access policy names the tenant '{shown}'; this platform has one: '{tenant}'."));
    }
    let mut permissions = json!({});
    for (kind, words) in PERMISSIONS {
        let given = match &policy["permissions"][kind] {
            Value::Null => continue,
            Value::Array(given) => given,
            _ => return Err(format!("'permissions.{kind}' must be a list of words.")),
        };
        let mut kept: Vec<&str> = Vec::new();
        for word in given {
            let text = word.as_str().unwrap_or_default();
            let known = words.iter().find(|known| known.eq_ignore_ascii_case(text)).ok_or_else(|| {
                let shown: String = word.to_string().chars().take(60).collect();
                format!("{shown} is no permission of {kind}; give some of: {}.", words.join(", "))
            })?;
            if !kept.contains(known) {
                kept.push(known);
            }
        }
        permissions[kind] = json!(kept);
    }
    Ok(json!({"tenantId": tenant.to_string(), "objectId": object.to_string(), "permissions": permissions}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_say_who_may_what() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let policy = |id: Uuid, words: &[&str]| json!({"objectId": id.to_string(), "permissions": {"secrets": words}});
        let given = json!([policy(one, &["GET", "list", "get"]), policy(other, &["all"])]);
        let kept = checked_policies(&given, one).unwrap();
        assert_eq!(kept[0]["permissions"]["secrets"], json!(["get", "list"]));
        let vault = json!({ "accessPolicies": kept });
        for (id, permission, allowed) in [
            (one, Permission::Get, true),
            (one, Permission::List, true),
            (one, Permission::Set, false),
            (one, Permission::Update, false),
            (one, Permission::Delete, false),
            (other, Permission::Set, true),
            (other, Permission::Delete, true),
            (Uuid::from_u128(3), Permission::Get, false),
        ] {
            assert_eq!(policy_allows(&vault, id, permission), allowed, "{id} {permission:?}");
        }
        assert!(!policy_allows(&json!({}), one, Permission::Get));
        for bad in [
            json!({}),
            json!([{"objectId": "x"}]),
            json!([{"objectId": one.to_string(), "tenantId": other.to_string()}]),
            json!([policy(one, &["read"])]),
            json!([{"objectId": one.to_string(), "permissions": {"secrets": "get"}}]),
        ] {
            assert!(checked_policies(&bad, one).is_err(), "{bad}");
        }
    }
}
