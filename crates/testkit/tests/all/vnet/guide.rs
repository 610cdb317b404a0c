//! A guide to network isolation, followed line by line with `az` a link to the program.

use std::{
    fs,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use casemate_testkit::Platform;

use super::{DISABLED, Namespace, Stage, attach, member_variables};

/// Deploys a model whose endpoint is closed to the public, from inside the workspace's network, by the command lines
/// that guides to network isolation have: from the workspace to the endpoint's deletion.
const DEPLOY: &str = r#"
set -e
for _ in $(seq 60); do getent ahostsv4 management.casemate.internal | grep -q "^$NETWORK" && break; sleep 0.5; done
az ml workspace create -g rg -n main -m allow_only_approved_outbound
az ml workspace provision-network -g rg -n main
az ml workspace show -n main -g rg --query managed_network
az configure --defaults workspace=main group=rg
az ml online-endpoint create --name $ENDPOINT -f endpoint.yml --set public_network_access=disabled
az ml online-deployment create --name blue --endpoint $ENDPOINT -f blue.yml --all-traffic
az ml online-endpoint show -n $ENDPOINT
[[ $(az ml online-endpoint show --name $ENDPOINT --query "provisioning_state" -o tsv) == "Succeeded" ]]
[[ $(az ml online-deployment show --name blue --endpoint $ENDPOINT --query "provisioning_state" -o tsv) == "Succeeded" ]]
echo "by the command:"
az ml online-endpoint invoke --name $ENDPOINT --request-file request.json
KEY=$(az ml online-endpoint get-credentials -n $ENDPOINT -o tsv --query primaryKey)
URI=$(az ml online-endpoint show -n $ENDPOINT -o tsv --query scoring_uri)
echo "by curl, from inside and from outside:"
curl -sS --request POST "$URI" --header "Authorization: Bearer $KEY" --header 'Content-Type: application/json' --data @request.json
"${OUTSIDE[@]}" curl -sS --connect-to "::$PUBLIC" --request POST "$URI" --header "Authorization: Bearer $KEY" --header 'Content-Type: application/json' --data @request.json
az ml online-deployment get-logs --name blue --endpoint $ENDPOINT
az ml online-endpoint delete --name $ENDPOINT --yes --no-wait
for _ in $(seq 120); do az ml online-endpoint show -n $ENDPOINT >/dev/null 2>&1 || { echo "the endpoint is gone"; exit 0; }; sleep 0.5; done
exit 1
"#;

/// Checks what [`DEPLOY`] printed.
fn check_deploy(output: &Output) -> Result<()> {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "the walk failed with {}:\n{said}", output.status);
    for expected in ["allow_only_approved_outbound", "\"active\"", "init of blue", DISABLED, "the endpoint is gone"] {
        ensure!(said.to_lowercase().contains(&expected.to_lowercase()), "'{expected}' is missing in:\n{said}");
    }
    // The command prints the answer as one JSON text, with its quotes escaped.
    ensure!(
        said.replace('\\', "").matches("\"sum\": 6").count() == 2,
        "scored twice, once by the command and once by curl:\n{said}"
    );
    Ok(())
}

/// The variables of [`DEPLOY`].
fn deploy_variables(stage: &Stage, network: &str, endpoint: &str) -> Result<Vec<(String, String)>> {
    let mut variables = member_variables(&stage.platform)?;
    let public = format!("127.0.0.1:{}", stage.port);
    for (name, value) in [("NETWORK", network), ("ENDPOINT", endpoint), ("PUBLIC", &public)] {
        variables.push((name.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

#[tokio::test]
async fn a_guide_to_isolation_is_followed_from_inside_a_managed_network() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let mut stage = Stage::new(Platform::start()?).await?;
    stage.owner.network("net", "10.232.77.0/24").await?;
    stage.owner.private_endpoint("pe", "net", "main", stage.port).await?;
    // The network is made again where nothing else is. The environment was built before.
    stage.platform.stop()?;
    let (home, member) = (Namespace::new("guide-home")?, Namespace::new("guide-member")?);
    stage.platform.move_into(home.enter(), &[]);
    stage.platform.launch()?;
    attach(&home, &member, "m0", "10.232.77.200/24")?;
    let variables = deploy_variables(&stage, "10[.]232[.]", "guide-managed")?;
    let script = format!("cd {}\nOUTSIDE=({})\n{DEPLOY}", stage.sample().display(), home.enter().join(" "));
    let output = member.shell("10.232.77.2", &script, &variables)?;
    check_deploy(&output).with_context(|| stage.platform.log())
}

#[tokio::test]
async fn a_guide_to_isolation_is_followed_from_a_loopback_network() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let stage = Stage::new(Platform::start()?).await?;
    stage.owner.network("net", "127.78.0.0/24").await?;
    stage.owner.private_endpoint("pe", "net", "main", stage.port).await?;
    let variables = deploy_variables(&stage, "127[.]78[.]", "guide-loopback")?;
    let resolver = stage.platform.state().join("resolv.conf");
    fs::write(&resolver, "nameserver 127.78.0.2\noptions timeout:2\n")?;
    let script = format!(
        "mount --bind {} /etc/resolv.conf\ncd {}\nOUTSIDE=(env)\n{DEPLOY}",
        resolver.display(),
        stage.sample().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", &script]);
    let output = command.envs(variables).output()?;
    check_deploy(&output).with_context(|| stage.platform.log())
}
