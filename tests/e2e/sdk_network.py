"""The managed network through the azure-ai-ml client: modes, rules of the three kinds, provisioning, learn mode.

Run with the variables of `casemate env`. Everything happens in one group; each step prints its time.
"""

import json
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

from azure.ai.ml import MLClient, load_workspace
from azure.ai.ml._restclient.arm_ml_service.models import OnlineDeployment as RestDeployment
from azure.ai.ml.entities import (
    FqdnDestination,
    ManagedNetwork,
    ManagedOnlineDeployment,
    OnlineDeployment,
    PrivateEndpointDestination,
    ServiceTagDestination,
    Workspace,
)
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential

WORKSPACE = """
$schema: https://azuremlschemas.azureedge.net/latest/workspace.schema.json
name: net-yaml
location: local
managed_network:
  isolation_mode: allow_only_approved_outbound
  outbound_rules:
  - name: added-tag
    type: service_tag
    destination:
      port_ranges: 80, 8080
      protocol: TCP
      service_tag: AzureMachineLearning
  - name: added-fqdn
    type: fqdn
    destination: test2.com
"""

BEGAN = time.monotonic()
DONE = []
URL, SUBSCRIPTION, GROUP = os.environ["CASEMATE_URL"], os.environ["AZURE_SUBSCRIPTION_ID"], "net-group"
SECRET = ClientSecretCredential(
    os.environ["AZURE_TENANT_ID"],
    os.environ["AZURE_CLIENT_ID"],
    os.environ["AZURE_CLIENT_SECRET"],
    authority=os.environ["AZURE_AUTHORITY_HOST"],
    disable_instance_discovery=True,
)
CONTEXT = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])


def step(name):
    DONE.append(name)
    print(f"{time.monotonic() - BEGAN:7.2f} s  {name}", flush=True)


def raw(method, path, body=None):
    token = SECRET.get_token(f"{URL}/.default").token
    request = urllib.request.Request(
        f"{URL}{path}?api-version=2024-10-01-preview",
        None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, context=CONTEXT, timeout=60) as response:
        return json.loads(response.read() or b"null")


def refused(call, *words):
    try:
        call()
    except HttpResponseError as error:
        assert error.status_code == 400, error
        for word in words:
            assert word in str(error), f"'{word}' is missing in: {error}"
        return
    raise AssertionError("should have been refused")


def rules(ml, name):
    return {rule.name: rule for rule in ml.workspace_outbound_rules.list(name)}


def modes(ml):
    began = time.monotonic()
    network = ManagedNetwork(
        isolation_mode="AllowOnlyApprovedOutbound",
        outbound_rules=[FqdnDestination(name="first", destination="*.example.com")],
    )
    ml.workspaces.begin_create(Workspace(name="net-ws", location="local", managed_network=network)).result()
    created = time.monotonic() - began
    step("create with a managed network")
    made = ml.workspaces.get("net-ws")
    assert made.managed_network.isolation_mode == "AllowOnlyApprovedOutbound", made
    assert made.managed_network.status.status == "Inactive" and made.managed_network.network_id, made
    before = {rule.name: rule for rule in made.managed_network.outbound_rules}
    assert before["first"].destination == "*.example.com" and before["first"].status == "Inactive"
    assert {rule.category for rule in before.values()} == {"UserDefined", "Required"}, before

    began = time.monotonic()
    status = ml.workspaces.begin_provision_network(workspace_name="net-ws", include_spark=False).result()
    assert status.status == "Active" and status.spark_ready is False, status
    print(f"{'':9}  workspace created in {created:.2f} s, its network ready after {time.monotonic() - began:.2f} s more")
    assert ml.workspaces.get("net-ws").managed_network.status.status == "Active"
    assert {rule.status for rule in rules(ml, "net-ws").values()} == {"Active"}
    step("provision")

    for mode, active in (
        ("AllowInternetOutbound", True),
        ("Disabled", False),
        ("AllowOnlyApprovedOutbound", True),
    ):
        workspace = ml.workspaces.get("net-ws")
        workspace.managed_network = ManagedNetwork(isolation_mode=mode)
        ml.workspaces.begin_update(workspace).result()
        network = ml.workspaces.get("net-ws").managed_network
        assert network.isolation_mode == mode and network.status.status == ("Active" if active else "Inactive"), network
        kept = {rule.name: rule.status for rule in network.outbound_rules}
        assert kept["first"] == ("Active" if mode == "AllowOnlyApprovedOutbound" else "Inactive"), (mode, kept)
    step("the mode changes both ways and the rules stay")
    # What was fetched can be sent back with one change; the required rules in it are left out by the client.
    workspace = ml.workspaces.get("net-ws")
    workspace.managed_network.outbound_rules.append(FqdnDestination(name="second", destination="packages.example.org"))
    ml.workspaces.begin_update(workspace).result()
    assert "second" in rules(ml, "net-ws")
    step("fetch, change, send back")


def three_kinds(ml):
    operations = ml.workspace_outbound_rules
    storage = ml.workspaces.get("net-ws").storage_account
    made = operations.begin_create("net-ws", FqdnDestination(name="fqdn", destination="pytorch.org, *.pytorch.org")).result()
    assert made.destination == "pytorch.org, *.pytorch.org" and made.status == "Active", made
    tag = ServiceTagDestination(
        name="tag", service_tag="AzureMonitor", protocol="TCP", port_ranges="80, 8080", address_prefixes=["10.0.0.0/24"]
    )
    made = operations.begin_create("net-ws", tag).result()
    assert (made.port_ranges, made.address_prefixes, made.protocol) == ("80, 8080", ["10.0.0.0/24"], "TCP"), made
    private = PrivateEndpointDestination(name="private", service_resource_id=storage, subresource_target="blob")
    made = operations.begin_create("net-ws", private).result()
    assert made.service_resource_id == storage and made.status == "Active" and made.spark_enabled is False, made
    step("create the three kinds")

    assert operations.get("net-ws", "private").subresource_target == "blob"
    operations.begin_update("net-ws", FqdnDestination(name="fqdn", destination="files.example.com")).result()
    assert operations.get("net-ws", "fqdn").destination == "files.example.com"
    tag.port_ranges = "443"
    assert operations.begin_update("net-ws", tag).result().port_ranges == "443"
    step("get, update")

    # Ports of hosts have no place in the client, and survive it.
    path = f"{ml.workspaces.get('net-ws').id}/outboundRules/db"
    ports = {"portRanges": "5432"}
    raw("PUT", path, {"properties": {"type": "FQDN", "destination": "db.example.com", "casemate": ports}})
    operations.begin_update("net-ws", operations.get("net-ws", "db")).result()
    workspace = ml.workspaces.get("net-ws")
    ml.workspaces.begin_update(workspace).result()
    assert raw("GET", path)["properties"]["casemate"] == ports
    step("ports survive the client")

    for bad, word in (
        (FqdnDestination(name="bad", destination="*"), "anybody"),
        (FqdnDestination(name="bad", destination="*.com"), "anybody"),
        (FqdnDestination(name="bad", destination="a.*.b"), "first label"),
        (FqdnDestination(name="__SYS_PE_x", destination="a.b"), "the platform's own"),
        (ServiceTagDestination(name="bad", service_tag="Narnia", protocol="TCP", port_ranges="443"), "service-tags.json"),
        (
            ServiceTagDestination(name="bad", protocol="TCP", port_ranges="80", address_prefixes=["169.254.169.254"]),
            "metadata",
        ),
        (PrivateEndpointDestination(name="bad", service_resource_id=f"{storage}x", subresource_target="blob"), "does not exist"),
        (PrivateEndpointDestination(name="bad", service_resource_id=storage, subresource_target="vault"), "give blob"),
    ):
        refused(lambda: operations.begin_create("net-ws", bad).result(), word)
    required = next(rule for rule in operations.list("net-ws") if rule.category == "Required")
    refused(lambda: operations.begin_remove("net-ws", required.name).result(), "required by the platform")
    step("what is refused")

    for name in ("fqdn", "tag", "private", "db", "second"):
        operations.begin_remove("net-ws", name).result()
        try:
            operations.get("net-ws", name)
            raise AssertionError(f"{name} is still there")
        except ResourceNotFoundError:
            pass
    assert set(rules(ml, "net-ws")) - {"first"} == {name for name in rules(ml, "net-ws") if name.startswith("__SYS_PE_")}
    step("remove")


def from_yaml(ml, files):
    (files / "workspace.yml").write_text(WORKSPACE)
    ml.workspaces.begin_create(load_workspace(files / "workspace.yml")).result()
    found = rules(ml, "net-yaml")
    assert found["added-tag"].service_tag == "AzureMachineLearning" and found["added-fqdn"].destination == "test2.com", found
    step("from YAML")


def learn_mode():
    """The property that turns it on is one that the client reads, keeps and sends."""
    body = {
        "id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/onlineEndpoints/e"
        "/deployments/blue",
        "name": "blue",
        "location": "local",
        "sku": {"name": "Default", "capacity": 1},
        "properties": {
            "endpointComputeType": "Managed",
            "properties": {"casemate.egressAudit": "true"},
            "scaleSettings": {"scaleType": "Default"},
        },
    }
    read = OnlineDeployment._from_rest_object(RestDeployment(body))
    assert isinstance(read, ManagedOnlineDeployment) and read.properties == {"casemate.egressAudit": "true"}, read.properties
    sent = read._to_rest_object("local")
    assert sent.properties.properties == {"casemate.egressAudit": "true"}, sent
    step("learn mode survives the client")


def command_line(program, ml):
    """The lines of the documents, against the same workspace."""

    def run(line):
        words = [*line.split(), "-g", GROUP, "-o", "json"]
        done = subprocess.run([program, "ml", "workspace", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    rule = "outbound-rule set --workspace-name net-ws --rule db --type fqdn --destination db.corp.example --port-ranges 5432"
    assert json.loads(run(rule))["port_ranges"] == "5432"
    changed = json.loads(run("outbound-rule update --workspace-name net-ws --rule db --port-ranges 5432,6432"))
    assert changed["destination"] == "db.corp.example" and changed["port_ranges"] == "5432,6432", changed
    allowed = json.loads(run("outbound-rule test -n net-ws db.corp.example:6432"))
    assert allowed["allowed"] and allowed["rule"] == "db", allowed
    assert not json.loads(run("outbound-rule test -n net-ws db.corp.example:443"))["allowed"]
    assert json.loads(run("outbound-log -n net-ws --denied")) == []
    assert "outbound_rules: []" in run("outbound-rule suggest -n net-ws")
    shown = json.loads(run("show -n net-ws --query managed_network"))
    assert shown["isolation_mode"] == "allow_only_approved_outbound" and shown["status"]["status"] == "Active", shown
    run("update -n net-ws -m allow_internet_outbound")
    run("update -n net-ws -m disabled")
    assert ml.workspaces.get("net-ws").managed_network.isolation_mode == "Disabled"
    step("the command line")


def main():
    raw("PUT", f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}", {"location": "local"})
    ml = MLClient(SECRET, SUBSCRIPTION, GROUP)
    modes(ml)
    three_kinds(ml)
    with tempfile.TemporaryDirectory() as files:
        from_yaml(ml, pathlib.Path(files))
    learn_mode()
    if len(sys.argv) > 1:
        command_line(sys.argv[1], ml)
    print(f"all {len(DONE)} steps passed")


main()
