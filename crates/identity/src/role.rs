//! Roles: what each may do, and whether a principal may do something somewhere.
//!
//! An assignment gives a principal a role at a scope and at all inside it. A role allows an action that one of its
//! `actions` matches and none of its `not_actions` does; a `not_action` takes away from its own role only, so another
//! assignment may give the action back. `*` in a pattern stands for any characters, and case does not matter.

use casemate_model::{Resource, ResourceId};
use uuid::Uuid;

/// The type of the resources that [`Assignment::from_resource`] reads.
pub const ASSIGNMENT_TYPE: &str = "Microsoft.Authorization/roleAssignments";

/// Full access, assigning roles included.
pub const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
/// Full access but for assigning roles.
pub const CONTRIBUTOR: &str = "b24988ac-6180-42a0-ab88-20f7382dd24c";
/// Reading.
pub const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
/// All inside a workspace but its compute resources and itself.
pub const DATA_SCIENTIST: &str = "f6c7c914-8db3-469d-8ca1-694a8f32e121";
/// Everything in a vault.
pub const VAULT_ADMINISTRATOR: &str = "00482a5a-887f-4fb3-b363-3b7fe8e74483";
/// Everything with a vault's secrets.
pub const VAULT_SECRETS_OFFICER: &str = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7";
/// Reading a vault's secrets.
pub const VAULT_SECRETS_USER: &str = "4633458b-17de-408a-b874-0445c86b69e6";
/// Seeing vaults and which secrets they hold, not what these are.
pub const VAULT_READER: &str = "21090545-7ca7-4776-b22c-e363652d74d2";
/// Scoring at endpoints; a role of this platform.
pub const ENDPOINT_SCORER: &str = "9b9a220a-0d00-4cda-8bfb-8f703ba121ca";

/// A built-in role.
#[derive(Debug, PartialEq, Eq)]
pub struct RoleDefinition {
    /// Its GUID.
    pub id: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// Patterns of what it allows.
    pub actions: &'static [&'static str],
    /// Patterns of what it does not allow all the same.
    pub not_actions: &'static [&'static str],
    /// Patterns of what it allows on the data itself.
    pub data_actions: &'static [&'static str],
    /// Patterns of what it does not allow on the data all the same.
    pub not_data_actions: &'static [&'static str],
}

const DEFINITIONS: &[RoleDefinition] = &[
    RoleDefinition {
        id: OWNER,
        name: "Owner",
        description: "Everything, assigning roles included.",
        actions: &["*"],
        not_actions: &[],
        data_actions: &[],
        not_data_actions: &[],
    },
    RoleDefinition {
        id: CONTRIBUTOR,
        name: "Contributor",
        description: "Everything but assigning roles.",
        actions: &["*"],
        not_actions: &[
            "Microsoft.Authorization/*/Delete",
            "Microsoft.Authorization/*/Write",
            "Microsoft.Authorization/elevateAccess/Action",
        ],
        data_actions: &[],
        not_data_actions: &[],
    },
    RoleDefinition {
        id: READER,
        name: "Reader",
        description: "Reading everything but secrets.",
        actions: &["*/read"],
        not_actions: &[],
        data_actions: &[],
        not_data_actions: &[],
    },
    RoleDefinition {
        id: DATA_SCIENTIST,
        name: "AzureML Data Scientist",
        description: "Everything inside a workspace, but neither changing the workspace nor its compute resources.",
        actions: &[
            "Microsoft.MachineLearningServices/workspaces/read",
            "Microsoft.MachineLearningServices/workspaces/*/read",
            "Microsoft.MachineLearningServices/workspaces/*/action",
            "Microsoft.MachineLearningServices/workspaces/*/delete",
            "Microsoft.MachineLearningServices/workspaces/*/write",
        ],
        not_actions: &[
            "Microsoft.MachineLearningServices/workspaces/delete",
            "Microsoft.MachineLearningServices/workspaces/write",
            "Microsoft.MachineLearningServices/workspaces/listKeys/action",
            "Microsoft.MachineLearningServices/workspaces/computes/*/write",
            "Microsoft.MachineLearningServices/workspaces/computes/*/delete",
            "Microsoft.MachineLearningServices/workspaces/computes/write",
            "Microsoft.MachineLearningServices/workspaces/computes/delete",
            "Microsoft.MachineLearningServices/workspaces/computes/listKeys/action",
        ],
        data_actions: &[],
        not_data_actions: &[],
    },
    RoleDefinition {
        id: ENDPOINT_SCORER,
        name: "AzureML Endpoint Scorer",
        description: "Scoring at online endpoints with a token of one's own, and seeing the endpoint.",
        actions: &[
            "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/score/action",
            "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/read",
        ],
        not_actions: &[],
        data_actions: &[],
        not_data_actions: &[],
    },
    RoleDefinition {
        id: VAULT_ADMINISTRATOR,
        name: "Key Vault Administrator",
        description: "Everything with the secrets of vaults, but neither changing vaults nor assigning roles.",
        actions: VAULT_READ,
        not_actions: &[],
        data_actions: &["Microsoft.KeyVault/vaults/*"],
        not_data_actions: &[],
    },
    RoleDefinition {
        id: VAULT_SECRETS_OFFICER,
        name: "Key Vault Secrets Officer",
        description: "Everything with the secrets of vaults, but for rights.",
        actions: VAULT_READ,
        not_actions: &[],
        data_actions: &["Microsoft.KeyVault/vaults/secrets/*"],
        not_data_actions: &[],
    },
    RoleDefinition {
        id: VAULT_SECRETS_USER,
        name: "Key Vault Secrets User",
        description: "Reading the secrets of vaults.",
        actions: &[],
        not_actions: &[],
        data_actions: &[
            "Microsoft.KeyVault/vaults/secrets/getSecret/action",
            "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
        ],
        not_data_actions: &[],
    },
    RoleDefinition {
        id: VAULT_READER,
        name: "Key Vault Reader",
        description: "Seeing vaults and which secrets they hold, but not the secrets.",
        actions: VAULT_READ,
        not_actions: &[],
        data_actions: &["Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/secrets/readMetadata/action"],
        not_data_actions: &[],
    },
];

/// What the roles on vaults let one see of their management.
const VAULT_READ: &[&str] = &[
    "Microsoft.Authorization/*/read",
    "Microsoft.KeyVault/checkNameAvailability/read",
    "Microsoft.KeyVault/deletedVaults/read",
    "Microsoft.KeyVault/locations/*/read",
    "Microsoft.KeyVault/vaults/*/read",
    "Microsoft.KeyVault/operations/read",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
];

/// All built-in roles.
#[must_use]
pub fn definitions() -> &'static [RoleDefinition] {
    DEFINITIONS
}

/// The built-in role with this GUID or this name, in any case.
#[must_use]
pub fn find(id_or_name: &str) -> Option<&'static RoleDefinition> {
    let is =
        |role: &&RoleDefinition| role.id.eq_ignore_ascii_case(id_or_name) || role.name.eq_ignore_ascii_case(id_or_name);
    DEFINITIONS.iter().find(is)
}

impl RoleDefinition {
    /// Whether the role allows `action`, such as `Microsoft.MachineLearningServices/workspaces/read`.
    #[must_use]
    pub fn allows(&self, action: &str) -> bool {
        let any = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, action));
        any(self.actions) && !any(self.not_actions)
    }

    /// Whether the role allows an action on the data itself, such as
    /// `Microsoft.KeyVault/vaults/secrets/getSecret/action`. No role on the management side does.
    #[must_use]
    pub fn allows_data(&self, action: &str) -> bool {
        let any = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, action));
        any(self.data_actions) && !any(self.not_data_actions)
    }
}

/// A role given to a principal at a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Object id of the principal.
    pub principal_id: Uuid,
    /// GUID of the role.
    pub role_id: String,
    /// Where it holds, and inside it.
    pub scope: ResourceId,
}

impl Assignment {
    /// Reads the stored assignment `<scope>/providers/Microsoft.Authorization/roleAssignments/<guid>` with the
    /// properties `principalId` and `roleDefinitionId` (an id or a bare GUID). None for what is not one, and for one
    /// that is being deleted: in doubt nobody gets a right.
    #[must_use]
    pub fn from_resource(resource: &Resource) -> Option<Self> {
        if resource.deleting || !resource.id.is_type(ASSIGNMENT_TYPE) {
            return None;
        }
        let text = |name: &str| resource.properties().get(name)?.as_str();
        let role = text("roleDefinitionId")?;
        Some(Self {
            principal_id: Uuid::parse_str(text("principalId")?).ok()?,
            role_id: role.rsplit('/').next().unwrap_or(role).to_lowercase(),
            scope: resource.id.parent()?,
        })
    }

    /// Whether this assignment gives `principal` a role at `at` that passes `test`.
    fn gives(&self, principal: Uuid, at: &ResourceId, test: impl Fn(&RoleDefinition) -> bool) -> bool {
        self.principal_id == principal
            && at.is_within(&self.scope)
            && DEFINITIONS.iter().any(|role| role.id.eq_ignore_ascii_case(&self.role_id) && test(role))
    }
}

/// Whether `principal` may do `action` at `at`.
#[must_use]
pub fn allowed(assignments: &[Assignment], principal: Uuid, action: &str, at: &ResourceId) -> bool {
    assignments.iter().any(|assignment| assignment.gives(principal, at, |role| role.allows(action)))
}

/// Whether `principal` may do `action` on the data of `at`.
#[must_use]
pub fn allowed_data(assignments: &[Assignment], principal: Uuid, action: &str, at: &ResourceId) -> bool {
    assignments.iter().any(|assignment| assignment.gives(principal, at, |role| role.allows_data(action)))
}

/// Whether `text` is `pattern` with each `*` replaced by some characters, in any case. Linear in the length of `text`
/// for each `*`.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    // Where to go on when what follows the last `*` does not fit: the `*` takes one more character.
    let mut retry: Option<(usize, usize)> = None;
    while read < text.len() {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at, read));
            at += 1;
        } else if pattern.get(at).is_some_and(|byte| byte.eq_ignore_ascii_case(&text[read])) {
            at += 1;
            read += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            at = star + 1;
            read = from + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests;
