//! The grammar against the lines that scripts and articles hold.

use clap::CommandFactory;

use super::*;
use crate::grammar::{DeploymentCommand, EndpointCommand, Format, Ml};

/// Splits a line as a shell does, for lines without escapes.
fn words(line: &str) -> Vec<OsString> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut inside) = (String::new(), None, false);
    for c in line.chars() {
        match (c, quote) {
            ('"' | '\'', None) => (quote, inside) = (Some(c), true),
            (c, Some(q)) if c == q => quote = None,
            (c, None) if c.is_whitespace() => {
                if inside || !word.is_empty() {
                    words.push(OsString::from(std::mem::take(&mut word)));
                }
                inside = false;
            }
            (c, _) => word.push(c),
        }
    }
    if inside || !word.is_empty() {
        words.push(word.into());
    }
    words
}

fn read(line: &str) -> Result<Root, clap::Error> {
    let matches = Root::command().try_get_matches_from(normalize(words(line)))?;
    Root::from_arg_matches(&matches)
}

#[test]
fn the_grammar_is_consistent() {
    Root::command().debug_assert();
}

/// Every `az` line of the two example scripts, of their set-up, and of the second walkthrough.
#[test]
fn lines_of_scripts_and_articles() {
    for line in [
        "az extension add -n ml -y",
        "az configure --defaults group=g workspace=w location=l",
        "az configure --defaults workspace=w group=g",
        "az configure -l -o table",
        "az configure -l --query \"[?name=='group'].value | [0]\" -o tsv",
        "az config get --query \"defaults[?name == 'workspace'].value\" -o tsv",
        "az account set -s \"SUB\"",
        "az account set --subscription \"SUB\"",
        "az account show --query id -o tsv",
        "az account get-access-token --query accessToken -o tsv",
        "az account get-access-token --resource https://ml.azure.com --query accessToken -o tsv",
        "az group create --name g --location local",
        "az group show --query location -o tsv",
        "az group delete --resource-group g",
        "az group exists -n g",
        "az keyvault create -n kv1 -g g --enable-rbac-authorization false",
        "az keyvault set-policy -n kv1 --object-id o --secret-permissions get",
        "az keyvault secret set --vault-name kv1 -n multiplier --value 7",
        "az keyvault secret show --vault-name kv1 -n multiplier --query value -o tsv",
        "az keyvault delete --name kv1 --no-wait",
        "az keyvault network-rule list -n kv1",
        "az keyvault network-rule add -n kv1 --ip-address 203.0.113.0/24 198.51.100.7",
        "az keyvault network-rule remove -n kv1 --vnet-name n --subnet s",
        "az keyvault update -n kv1 --bypass AzureServices",
        "az network vnet create -n v --address-prefixes 127.77.0.0/16 --subnet-name default --subnet-prefixes 127.77.0.0/24",
        "az network vnet create -g g -n v --address-prefix 10.0.0.0/16 --subnet-name s --subnet-prefix 10.0.0.0/24 -l local",
        "az network vnet create -n v --address-prefixes 192.168.7.0/24 --kind interface --interface eth0",
        "az network vnet subnet update -n s --vnet-name v -g g --disable-private-endpoint-network-policies true",
        "az network private-endpoint create -n pe -g g --vnet-name v --subnet s --private-connection-resource-id ID --group-id amlworkspace --connection-name c -l local",
        "az network private-endpoint create -n pe --subnet ID --private-connection-resource-id ID --group-ids blob --connection-name c --manual-request --request-message please",
        "az network private-endpoint dns-zone-group create -g g --endpoint-name pe --name default --private-dns-zone privatelink.api.azureml.ms --zone-name ml",
        "az network private-dns zone create -g g --name privatelink.api.azureml.ms",
        "az network private-dns link vnet create -g g --zone-name z --name l --virtual-network v --registration-enabled false",
        "az network private-dns record-set list -z privatelink.api.azureml.ms -o tsv --query [].name",
        "az network private-dns record-set a add-record -g g -z z -n www -a 10.0.0.4",
        "az network private-dns record-set a create -g g -z z -n www --ttl 60",
        "az network private-dns record-set cname set-record -g g -z z -n ftp -c www.z",
        "az network private-dns record-set txt remove-record -z z -n @ -v hello",
        "az network private-endpoint-connection list --id ID",
        "az network private-endpoint-connection list -g g --type Microsoft.MachineLearningServices/workspaces --name w",
        "az network private-endpoint-connection approve -n NAME",
        "az network private-endpoint-connection approve -g g --type T --resource-name w -n NAME --description ok",
        "az network private-endpoint-connection delete --id ID --yes",
        "az network private-link-resource list -g g -n w --type Microsoft.MachineLearningServices/workspaces",
        "az ml computetarget update aks -g RG -w WS -n myaks --ssl-leaf-domain-label \"myaks\" --ssl-overwrite-domain True --ssl-renew",
        "az ml computetarget update aks -g RG -w WS -n myaks --ssl-cname \"myaks\" --ssl-cert-file \"cert.pem\" --ssl-key-file \"key.pem\"",
        "az ml computetarget update aks -n myaks --ssl-disable --load-balancer-type PublicIp --no-wait",
        "az ml computetarget create aks -n myaks -g RG -w WS --agent-count 3 --vm-size Standard_D3_v2 --cluster-purpose DevTest",
        "az ml computetarget attach aks -n myaks -i ID -g RG -w WS --ssl-leaf-domain-label contoso --ssl-overwrite-domain",
        "az ml computetarget show -n myaks -g RG -w WS",
        "az ml computetarget list -g RG -w WS --subscription-id SUB",
        "az ml computetarget detach -n myaks",
        "az ml computetarget delete -n myaks --no-wait",
        "az acr private-endpoint-connection list -r ACR --query \"[?privateLinkServiceConnectionState.description=='Egress for Microsoft.MachineLearningServices/workspaces/onlineEndpoints'].{Name:name, status:privateLinkServiceConnectionState.status}\"",
        "az acr private-endpoint-connection approve -r ACR -n NAME",
        "casemate network private-link-service create -n db --address 10.9.0.5 --ports 5432",
        "az group delete -g g -y --no-wait",
        "az ml workspace create -g g -n w -m allow_only_approved_outbound",
        "az ml workspace create --name w --resource-group g --location l",
        "az ml workspace provision-network -g g -n w",
        "az ml workspace update -n w -g g --public-network-access disabled",
        "casemate ml workspace update -n w --ip-allowlist 192.0.2.0/24 2001:db8::1",
        "az ml workspace show -n w -g g --query managed_network",
        "az ml workspace show --query container_registry -o tsv",
        "az ml workspace delete -n w --all-resources --yes",
        "az ml workspace update -n w -g g -m allow_internet_outbound",
        "az ml workspace outbound-rule set -w w -g g --rule r --type fqdn --destination packages.example.org",
        "az ml workspace outbound-rule set -w w -g g --rule r --type service_tag --service-tag T --protocol TCP --port-ranges 80,443",
        "az ml workspace outbound-rule set -w w --rule r --type private_endpoint --service-resource-id /x --subresource-target blob --spark-enabled true",
        "az ml workspace outbound-rule list -w w -g g",
        "az ml workspace outbound-rule show --workspace-name w --rule r",
        "az ml workspace outbound-rule remove --workspace-name w --rule r --yes",
        "casemate ml workspace outbound-rule update -w w --rule r --port-ranges 5432",
        "casemate ml workspace outbound-rule test -n w --deployment blue --endpoint e db.example.com:5432",
        "casemate ml workspace outbound-rule suggest -n w --deployment blue",
        "casemate ml workspace outbound-log -n w --denied --follow -o table",
        "casemate ml online-deployment update -n blue -e e --audit",
        "casemate ml online-deployment update -n blue -e e --audit false",
        "az ml online-endpoint create --name e -f endpoint.yml",
        "az ml online-endpoint create --name e -f endpoint.yml --set public_network_access=disabled",
        "az ml online-endpoint create --name e -f e.yml --set identity.user_assigned_identities[0].resource_id=/x",
        "az ml online-endpoint create -n e",
        "az ml online-endpoint show -n e",
        "az ml online-endpoint show --name e --query \"provisioning_state\" -o tsv",
        "az ml online-endpoint show -n e -o tsv --query \"properties.\\\"azureml.onlineendpointid\\\"\"",
        "az ml online-endpoint show -n e --query traffic",
        "az ml online-endpoint invoke --name e --request-file sample-request.json",
        "az ml online-endpoint invoke --name e --deployment-name green --request-file sample-request.json",
        "az ml online-endpoint invoke --name e --deployment green --request-file sample-request.json",
        "az ml online-endpoint get-credentials -n e -o tsv --query primaryKey",
        "az ml online-endpoint regenerate-keys -n e --key-type secondary",
        "az ml online-endpoint update --name e --mirror-traffic \"green=10\"",
        "az ml online-endpoint update --name e --traffic \"blue=90 green=10\"",
        "az ml online-endpoint update --name e --traffic blue=90 green=10",
        "az ml online-endpoint update -n e --set tags.a=b properties.c=d",
        "az ml online-endpoint delete --name e --yes --no-wait",
        "az ml online-endpoint delete -y -n e --no-wait",
        "az ml online-deployment create --name blue --endpoint e -f blue.yml --all-traffic",
        "az ml online-deployment create --name blue --endpoint-name e -f blue.yml --all-traffic",
        "az ml online-deployment create --endpoint-name e --all-traffic --name blue --file b.yml --set environment_variables.A=1 environment_variables.B=2",
        "az ml online-deployment create -f d.yml --set model=\"azureml:m:1\" --set endpoint_name=e --all-traffic",
        "az ml online-deployment create --name r --endpoint e -f r.yml --all-traffic --skip-script-validation",
        "az ml online-deployment update --name blue --endpoint-name e --set instance_count=2",
        "az ml online-deployment update -e e -n b --set code_configuration.scoring_script=\"multi.py\"",
        "az ml online-deployment show --name blue --endpoint e --query \"provisioning_state\" -o tsv",
        "az ml online-deployment show -e e -n blue --query '{name:name,state:provisioning_state}'",
        "az ml online-deployment list -e e",
        "az ml online-deployment get-logs --name blue --endpoint e",
        "az ml online-deployment get-logs -e e -n blue -l 100 -c storage-initializer",
        "az ml online-deployment delete --name blue --endpoint e --yes --no-wait",
        "az ml model create -f model.yml --set version=12345",
        "az ml model create -n m -v 1 -p ./model --type mlflow_model",
        "az ml model archive -n m --version 1",
        "az ml environment create --file env.yaml --set version=1 -o none",
        "az login --service-principal -u a -p b -t c",
        "az role assignment create --assignee-object-id x --assignee-principal-type ServicePrincipal --role Reader --scope /subscriptions/s",
        "az ml online-endpoint list -g g -w w --only-show-errors -o TABLE",
        "casemate az group list --debug",
        "casemate up --listen 127.0.0.1:0 --state /tmp/x --environment-python nearest",
        "casemate demo --keep",
        "casemate env --format json",
        "casemate sp create --display-name scorer --role Reader --scopes /subscriptions/s /subscriptions/t",
        "casemate version",
    ] {
        if let Err(error) = read(line) {
            panic!("{line}\n{error}");
        }
    }
}

#[test]
fn what_the_lines_mean() {
    let root = read(
        "az ml online-deployment create --name blue --endpoint e -f b.yml --set a=1 b=2 --set c=3 --all-traffic -o tsv",
    )
    .unwrap();
    assert_eq!(root.globals.output, Some(Format::Tsv));
    let Top::Ml(noun) = root.command else { panic!() };
    let Ml::OnlineDeployment(DeploymentCommand::Create { write, all_traffic }) = *noun else { panic!() };
    assert_eq!(write.source.settings, ["a=1", "b=2", "c=3"]);
    assert_eq!((write.endpoint_name.as_deref(), all_traffic), (Some("e"), true));
    let root = read("az ml online-endpoint update -n e --traffic blue=90 green=10").unwrap();
    let Top::Ml(noun) = root.command else { panic!() };
    let Ml::OnlineEndpoint(EndpointCommand::Update(update)) = *noun else { panic!() };
    assert_eq!(update.traffic.unwrap(), ["blue=90", "green=10"]);
}

#[test]
fn typing_errors_and_what_is_not_there_yet() {
    for (line, said) in [
        ("az ml online-endpoint shwo -n e", None),
        ("az ml online-endpoint show", None),
        ("az ml online-endpoint show -n e --nmae x", None),
        ("az group delete", None),
        ("casemate up --listen nonsense", None),
        ("casemate up --domain Not_A_Domain", None),
        ("casemate up --region a.b", None),
        ("az ml online-deployment create -n b -e e -f f --all-traffic --no-wait", None),
        ("az configure", None),
        ("az storage account create -n a", Some("`storage` is not supported by casemate yet")),
        ("az ml job create -f j.yml", Some("`ml job` is not supported by casemate yet")),
        (
            "az ml online-endpoint create -n e --registry-name r",
            Some("--registry-name is not supported by casemate yet"),
        ),
        (
            "az ml online-deployment create -n b -e e --vscode-debug true",
            Some("--vscode-debug is not supported by casemate yet"),
        ),
    ] {
        let error = read(line).expect_err(line);
        let arguments: Vec<String> = words(line).iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let explained = unsupported::explain(&error, &arguments);
        match said {
            None => assert!(explained.is_none(), "{line}: {explained:?}"),
            Some(said) => {
                assert!(explained.as_deref().is_some_and(|text| text.contains(said)), "{line}: {explained:?}")
            }
        }
        assert!(error.use_stderr());
    }
}

#[test]
fn every_command_has_help_and_an_example() {
    fn check(command: &clap::Command, path: &str) {
        if command.get_name() == "help" {
            return;
        }
        assert!(command.get_about().is_some(), "{path} says nothing of itself");
        let trivial = ["logout", "version", "extension"].iter().any(|word| path.contains(word));
        let mut inner = command.get_subcommands().peekable();
        if inner.peek().is_none() && !trivial && !path.ends_with("sp list") {
            assert!(
                command.get_after_help().is_some_and(|text| text.to_string().contains("casemate ")),
                "{path} has no example"
            );
        }
        for one in inner {
            check(one, &format!("{path} {}", one.get_name()));
        }
    }
    check(&Root::command(), "casemate");
}

#[test]
fn under_another_name() {
    for (given, meant) in [
        (&["az", "group", "list"][..], &["az", "group", "list"][..]),
        (&["/usr/bin/az", "group"], &["/usr/bin/az", "group"]),
        (&["casemate", "az", "group"], &["casemate", "group"]),
        (&["casemate", "group"], &["casemate", "group"]),
        (&[], &["casemate"]),
    ] {
        let normalized = normalize(given.iter().map(OsString::from).collect());
        assert_eq!(normalized, meant.iter().map(OsString::from).collect::<Vec<_>>());
    }
}
