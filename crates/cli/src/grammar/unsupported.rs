//! What `az` knows and this platform does not have: the answer says so, instead of calling it a typing error.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// First words and `ml` nouns that `az` knows.
const KNOWN_COMMANDS: &[&str] = &[
    // First words.
    "ad",
    "acr",
    "aks",
    "apim",
    "appconfig",
    "appservice",
    "arcdata",
    "backup",
    "batch",
    "bicep",
    "billing",
    "cdn",
    "cloud",
    "cognitiveservices",
    "connectedk8s",
    "container",
    "containerapp",
    "cosmosdb",
    "databricks",
    "deployment",
    "disk",
    "dns",
    "eventgrid",
    "eventhubs",
    "feature",
    "feedback",
    "find",
    "functionapp",
    "identity",
    "image",
    "interactive",
    "iot",
    "k8s-extension",
    "keyvault",
    "kusto",
    "lock",
    "logicapp",
    "managedapp",
    "monitor",
    "mysql",
    "netappfiles",
    "network",
    "policy",
    "postgres",
    "provider",
    "redis",
    "resource",
    "rest",
    "search",
    "security",
    "servicebus",
    "sig",
    "signalr",
    "snapshot",
    "sql",
    "ssh",
    "sshkey",
    "stack",
    "staticwebapp",
    "storage",
    "synapse",
    "tag",
    "term",
    "ts",
    "upgrade",
    "vm",
    "vmss",
    "webapp",
    // Nouns of `ml`.
    "batch-deployment",
    "batch-endpoint",
    "capability-host",
    "component",
    "compute",
    "connection",
    "data",
    "datastore",
    "feature-set",
    "feature-store",
    "feature-store-entity",
    "index",
    "job",
    "marketplace-subscription",
    "registry",
    "schedule",
    "serverless-endpoint",
    // Verbs.
    "clear",
    "diagnose",
    "download",
    "export",
    "package",
    "share",
    "list-keys",
    "sync-keys",
    "import-file",
    "list-locations",
    "management-group",
    "lock-create",
    "update",
    "wait",
    "get-token",
];

/// Options that `az` knows for commands that this platform has.
const KNOWN_OPTIONS: &[&str] = &[
    "--vscode-debug",
    "--package-model",
    "--with-package",
    "--local-enable-gpu",
    "--registry-name",
    "--datastore",
    "--add",
    "--remove",
    "--force-string",
    "--input-data",
    "--add-existing-model",
    "--managed-by",
    "--force-deletion-types",
    "--if-match",
    "--custom",
    "--updated",
    "--enable-data-isolation",
    "--allow-roleassignment-on-rg",
    "--user-assigned-identity",
    "--customer-managed-key",
    "--network-acls",
    "--filtered-resource-types",
    "--max-results",
    "--no-query",
    "--with-counts",
    "--use-device-code",
    "--identity",
    "--federated-token",
    "--certificate",
    "--use-cert-sn-issuer",
    "--include-inherited",
    "--include-groups",
    "--condition",
    "--years",
    "--sdk-auth",
    "--json-auth",
    "--cert",
    "--create-cert",
    "--hub-id",
    "--no-prompt",
    "--no-browser",
    "--client-id",
    "--object-id",
    "--resource-id",
    "--inference-config",
    "--ids-file",
];

/// A message when the error is about something that `az` knows; none for real typing errors.
pub(crate) fn explain(error: &clap::Error, arguments: &[String]) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand)?;
            let at = arguments.iter().position(|argument| argument == word)?;
            let path =
                arguments[1..=at].iter().filter(|word| !word.starts_with('-')).cloned().collect::<Vec<_>>().join(" ");
            KNOWN_COMMANDS
                .contains(&word)
                .then(|| format!("`{path}` is not supported by casemate yet. What there is: casemate --help."))
        }
        ErrorKind::UnknownArgument => {
            let option = context(ContextKind::InvalidArg)?.split([' ', '=']).next()?;
            KNOWN_OPTIONS.contains(&option).then(|| {
                format!("The option {option} is not supported by casemate yet for this command. What there is: the same command with --help.")
            })
        }
        _ => None,
    }
}
