//! Key vaults: the original's client from outside, and a model that reads a secret as its endpoint's identity, by the
//! name that the vault would have in the public cloud.

use std::fs;

use anyhow::{Result, ensure};
use casemate_testkit::{Platform, sample::Sample};

/// Multiplies by a secret, which it reads with the original's clients; tells what another variable was set to.
const SCORE: &str = r#"
import json, os
from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient

def init():
    global factor
    name, vault = os.environ["FACTOR"].split("@")
    factor = int(SecretClient(vault_url=vault, credential=ManagedIdentityCredential()).get_secret(name).value)

def run(data):
    return {"product": factor * json.loads(data)["input"], "injected": len(os.environ.get("INJECTED", ""))}
"#;

/// Its environment.
const CONDA: &str = "name: vault\ndependencies:\n  - pip:\n      - azureml-inference-server-http\n      - azure-identity\n      - azure-keyvault-secrets\n";

#[test]
fn the_original_client_keeps_secrets_in_a_vault() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    platform.casemate("keyvault create -n kv-outside")?;
    let id = platform.casemate("keyvault show -n kv-outside --query id -o tsv")?;
    let client = platform.env()?["AZURE_CLIENT_ID"].clone();
    let denied = platform.casemate("keyvault secret set --vault-name kv-outside -n one --value 1");
    let said = format!("{:#}", denied.expect_err("owning a vault is no right to its secrets"));
    ensure!(said.contains("Key Vault Secrets Officer"), "{said}");
    let officer = ["role", "assignment", "create", "--role", "Key Vault Secrets Officer", "--assignee", &client];
    let output = platform.command(officer).args(["--scope", id.trim()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let uri = platform.casemate("keyvault show -n kv-outside --query properties.vaultUri -o tsv")?;
    let said = platform.python("keyvault.py", &[uri.trim()])?;
    ensure!(said.contains("steps passed"), "{said}");

    platform.casemate("keyvault secret set --vault-name kv-outside -n one --value 1")?;
    let value = platform.casemate("keyvault secret show --vault-name kv-outside -n one --query value -o tsv")?;
    ensure!(value.trim() == "1", "{value}");
    platform.casemate("keyvault update -n kv-outside --default-action Deny")?;
    let denied = platform.casemate("keyvault secret show --vault-name kv-outside -n one");
    let said = format!("{:#}", denied.expect_err("no rule names this address"));
    ensure!(said.contains("network-rule add -n kv-outside --ip-address 127.0.0.1"), "{said}");
    platform.casemate("keyvault network-rule add -n kv-outside --ip-address 127.0.0.1")?;
    platform.casemate("keyvault secret show --vault-name kv-outside -n one")?;
    let rules = platform.casemate("keyvault network-rule list -n kv-outside --query ipRules[0].value -o tsv")?;
    ensure!(rules.trim() == "127.0.0.1/32", "{rules}");
    platform.casemate("keyvault delete -n kv-outside")?;
    ensure!(platform.casemate("keyvault list --query [].name -o tsv").is_ok_and(|all| !all.contains("kv-outside")));
    Ok(())
}

#[test]
fn a_model_reads_a_secret_as_its_endpoint() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let sample = Sample::new(dir.path(), "vault", SCORE)?;
    fs::write(sample.path("conda.yaml"), CONDA)?;
    fs::write(sample.path("request.json"), r#"{"input": 6}"#)?;
    platform.casemate(&format!("ml online-endpoint create -n sample -f {}", sample.path("endpoint.yml").display()))?;
    platform.casemate("keyvault create -n kv-inside --enable-rbac-authorization false")?;
    platform.casemate("keyvault secret set --vault-name kv-inside -n factor --value 7")?;

    let blue = sample.deployment("blue", "")?;
    let create = format!("ml online-deployment create -n blue -e sample -f {} --all-traffic", blue.display());
    let by_name = "--set environment_variables.FACTOR=factor@https://kv-inside.vault.azure.net";
    let injected =
        "--set environment_variables.INJECTED=${{keyvault:https://kv-inside.vault.azure.net/secrets/factor}}";
    let failed = platform.casemate(&format!("{create} {by_name} {injected}"));
    let said = format!("{:#}", failed.expect_err("the identity may not read the secret yet"));
    ensure!(said.contains("SecretInjectionFailed") && said.contains("az keyvault set-policy -n kv-inside"), "{said}");

    let principal = platform.casemate("ml online-endpoint show -n sample --query identity.principal_id -o tsv")?;
    let policy = format!("keyvault set-policy -n kv-inside --object-id {} --secret-permissions get", principal.trim());
    platform.casemate(&policy)?;
    platform.casemate(&format!("{create} {by_name} {injected}"))?;
    let request = sample.path("request.json");
    let invoke = format!("ml online-endpoint invoke -n sample --request-file {}", request.display());
    let said = platform.casemate(&invoke)?;
    ensure!(said.contains("42") && said.contains("injected") && said.contains(": 1"), "{said}");
    let shown = platform.casemate("ml online-deployment show -n blue -e sample")?;
    ensure!(shown.contains("${{keyvault:"), "what is shown names the secret: {shown}");
    ensure!(!platform.log().contains("INJECTED=7"), "the value is in the platform's log");
    Ok(())
}
