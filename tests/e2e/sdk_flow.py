"""The main job with the unmodified azure-ai-ml client: workspace, rules, endpoint, deployments, traffic, logs, delete.

Run with the variables of `casemate env`. Argument: a directory with the files of a small model
(endpoint needs none of them but: code/score.py, model/model.txt, conda.yaml).
"""

import json
import os
import pathlib
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request

from azure.ai.ml import MLClient
from azure.ai.ml.entities import (
    CodeConfiguration,
    Environment,
    FqdnDestination,
    ManagedNetwork,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    Model,
    OnlineRequestSettings,
    Workspace,
)
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential, DefaultAzureCredential
from azure.mgmt.core.tools import parse_resource_id  # noqa: F401  (the client needs it; fail early if it is missing)

SCORE = """
import os, json
def init():
    global text
    root = os.environ["AZUREML_MODEL_DIR"]
    text = open(os.path.join(root, "model", "model.txt")).read().strip()
    print("init of", os.environ.get("FLAVOUR"), flush=True)
def run(data):
    return {"model": text, "flavour": os.environ.get("FLAVOUR"), "sum": sum(json.loads(data)["data"])}
"""

CONDA = """
name: small
channels: [conda-forge]
dependencies:
  - pip:
      - azureml-inference-server-http
"""

DONE = []


def step(name):
    DONE.append(name)
    print(f"{time.monotonic() - BEGAN:7.2f} s  {name}", flush=True)


def post(uri, key, body, headers=None):
    request = urllib.request.Request(uri, json.dumps(body).encode(), method="POST")
    request.add_header("Authorization", f"Bearer {key}")
    request.add_header("Content-Type", "application/json")
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    with urllib.request.urlopen(request, context=context, timeout=30) as response:
        return json.loads(response.read()), response.headers


def deployment(name, endpoint, files, flavour, count=1):
    return ManagedOnlineDeployment(
        name=name,
        endpoint_name=endpoint,
        model=Model(path=files / "model"),
        code_configuration=CodeConfiguration(code=str(files / "code"), scoring_script="score.py"),
        environment=Environment(
            conda_file=str(files / "conda.yaml"),
            image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest",
        ),
        environment_variables={"FLAVOUR": flavour},
        instance_type="Standard_DS3_v2",
        instance_count=count,
        request_settings=OnlineRequestSettings(max_queue_wait_ms=30000, request_timeout_ms=10000),
    )


BEGAN = time.monotonic()
subscription, group = os.environ["AZURE_SUBSCRIPTION_ID"], "sdk-group"
secret = ClientSecretCredential(
    os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"]
)
files = pathlib.Path(tempfile.mkdtemp(prefix="sdk-flow-"))
(files / "code").mkdir()
(files / "model").mkdir()
(files / "code" / "score.py").write_text(SCORE)
(files / "model" / "model.txt").write_text("forty-two\n")
(files / "conda.yaml").write_text(CONDA)

# The group is made by a plain request, as any management client would.
token = secret.get_token(os.environ["CASEMATE_URL"] + "/.default").token
request = urllib.request.Request(
    f"{os.environ['CASEMATE_URL']}/subscriptions/{subscription}/resourcegroups/{group}?api-version=2021-04-01",
    json.dumps({"location": "local"}).encode(),
    method="PUT",
    headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
)
with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])) as made:
    assert made.status in (200, 201), made.status
step("resource group")

ml = MLClient(secret, subscription, group)
ml.workspaces.begin_create(
    Workspace(
        name="sdk-ws",
        location="local",
        managed_network=ManagedNetwork(isolation_mode="AllowOnlyApprovedOutbound"),
    )
).result()
step("workspace create")
workspace = ml.workspaces.get("sdk-ws")
assert workspace.managed_network.isolation_mode == "AllowOnlyApprovedOutbound", workspace
assert [found.name for found in ml.workspaces.list()] == ["sdk-ws"]
step("workspace get, list")
workspace.description = "changed"
ml.workspaces.begin_update(workspace).result()
assert ml.workspaces.get("sdk-ws").description == "changed"
step("workspace update")
ml.workspaces.get_keys("sdk-ws")
step("workspace keys")

ml = MLClient(DefaultAzureCredential(), subscription, group, "sdk-ws")
rule = FqdnDestination(name="packages", destination="packages.example.com")
ml.workspace_outbound_rules.begin_create("sdk-ws", rule).result()
assert "packages" in [rule.name for rule in ml.workspace_outbound_rules.list("sdk-ws")]
assert ml.workspace_outbound_rules.get("sdk-ws", "packages").destination == "packages.example.com"
ml.workspace_outbound_rules.begin_remove("sdk-ws", "packages").result()
step("outbound rules")
ml.workspaces.begin_provision_network(workspace_name="sdk-ws", include_spark=False).result()
step("provision network")

registered = ml.models.create_or_update(Model(path=files / "model", name="registered", version="1", description="d"))
assert ml.models.get("registered", version="1").description == "d"
assert [m.version for m in ml.models.list("registered")] == ["1"]
assert ml.models.get("registered", label="latest").version == "1"
step("model create, get, list, latest")
ml.models.download("registered", version="1", download_path=str(files / "down"))
assert list((files / "down").rglob("model.txt"))[0].read_text() == "forty-two\n"
step("model download")
ml.environments.create_or_update(Environment(name="env", version="1", conda_file=str(files / "conda.yaml"), image="x/y:1"))
assert ml.environments.get("env", "1").image == "x/y:1"
assert "env" in [e.name for e in ml.environments.list()]
step("environment create, get, list")
assert "workspaceblobstore" in [store.name for store in ml.datastores.list()]
ml.datastores.get_default()
step("datastores")

ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="sdk-ep", auth_mode="key", tags={"a": "b"})).result()
endpoint = ml.online_endpoints.get("sdk-ep")
assert endpoint.provisioning_state == "Succeeded" and endpoint.scoring_uri, endpoint
assert [e.name for e in ml.online_endpoints.list()] == ["sdk-ep"]
step("endpoint create, get, list")

blue = ml.online_deployments.begin_create_or_update(deployment("blue", "sdk-ep", files, "b")).result()
assert blue.provisioning_state == "Succeeded", blue
step("deployment create")
began = time.monotonic()
ml.online_deployments.begin_create_or_update(deployment("green", "sdk-ep", files, "g")).result()
step(f"second deployment, cached environment: {time.monotonic() - began:.2f} s")

body = {"data": [1, 2, 3]}
(files / "request.json").write_text(json.dumps(body))
try:
    ml.online_endpoints.invoke("sdk-ep", request_file=str(files / "request.json"))
    raise AssertionError("no traffic yet, so the call must fail")
except HttpResponseError as error:
    assert error.status_code == 404, error
endpoint.traffic = {"blue": 100}
ml.online_endpoints.begin_create_or_update(endpoint).result()
answer = json.loads(ml.online_endpoints.invoke("sdk-ep", request_file=str(files / "request.json")))
assert answer == {"model": "forty-two", "flavour": "b", "sum": 6}, answer
answer = json.loads(
    ml.online_endpoints.invoke("sdk-ep", request_file=str(files / "request.json"), deployment_name="green")
)
assert answer["flavour"] == "g", answer
step("invoke, by traffic and by name")

# The client keeps the deployment header of its last call for the life of the process, so the split is measured raw.
keys = ml.online_endpoints.get_keys("sdk-ep")
endpoint = ml.online_endpoints.get("sdk-ep")
endpoint.traffic = {"blue": 50, "green": 50}
ml.online_endpoints.begin_create_or_update(endpoint).result()
seen = [post(endpoint.scoring_uri, keys.primary_key, body)[0]["flavour"] for _ in range(60)]
assert 10 <= seen.count("g") <= 50, seen
assert post(endpoint.scoring_uri, keys.secondary_key, body)[1]["azureml-model-deployment"] in ("blue", "green")
step("keys, traffic split")
ml.online_endpoints.begin_regenerate_keys("sdk-ep", key_type="primary").result()
fresh = ml.online_endpoints.get_keys("sdk-ep")
assert fresh.primary_key != keys.primary_key and fresh.secondary_key == keys.secondary_key
try:
    post(endpoint.scoring_uri, keys.primary_key, body)
    raise AssertionError("the old key must be refused")
except urllib.error.HTTPError as error:
    assert error.code == 401 and json.loads(error.read())["error"]["code"], error
post(endpoint.scoring_uri, fresh.primary_key, body)
step("regenerate key")

endpoint = ml.online_endpoints.get("sdk-ep")
endpoint.traffic, endpoint.mirror_traffic = {"blue": 100, "green": 0}, {"green": 10}
ml.online_endpoints.begin_create_or_update(endpoint).result()
assert ml.online_endpoints.get("sdk-ep").mirror_traffic == {"green": 10}
step("mirror traffic")

green = ml.online_deployments.get("green", "sdk-ep")
green.instance_count = 2
ml.online_deployments.begin_create_or_update(green).result()
assert ml.online_deployments.get("green", "sdk-ep").instance_count == 2
assert sorted(d.name for d in ml.online_deployments.list("sdk-ep")) == ["blue", "green"]
step("deployment scale, get, list")
assert "init of b" in ml.online_deployments.get_logs("blue", "sdk-ep", lines=200)
ml.online_deployments.get_logs("blue", "sdk-ep", lines=10, container_type="storage-initializer")
step("logs")

for mode, take in (("aml_token", lambda e: ml.online_endpoints.get_keys(e).access_token), ("aad_token", lambda e: secret.get_token("https://ml.azure.com/.default").token)):
    name = "ep-" + mode.replace("_", "-")
    ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name=name, auth_mode=mode)).result()
    ml.online_deployments.begin_create_or_update(deployment("only", name, files, mode)).result()
    token_endpoint = ml.online_endpoints.get(name)
    token_endpoint.traffic = {"only": 100}
    ml.online_endpoints.begin_create_or_update(token_endpoint).result()
    assert post(token_endpoint.scoring_uri, take(name), body)[0]["sum"] == 6
    assert json.loads(ml.online_endpoints.invoke(name, request_file=str(files / "request.json"), deployment_name="only"))["sum"] == 6
    step(f"{mode} endpoint")
    ml.online_endpoints.begin_delete(name).result()

try:
    ml.online_deployments.begin_delete("blue", "sdk-ep").result()
    raise AssertionError("a deployment with traffic must not be deleted")
except HttpResponseError as error:
    assert error.status_code in (400, 409), error
endpoint = ml.online_endpoints.get("sdk-ep")
endpoint.traffic, endpoint.mirror_traffic = {"blue": 100}, {}
ml.online_endpoints.begin_create_or_update(endpoint).result()
ml.online_deployments.begin_delete("green", "sdk-ep").result()
assert [d.name for d in ml.online_deployments.list("sdk-ep")] == ["blue"]
step("deployment delete")
ml.online_endpoints.begin_delete("sdk-ep").result()
try:
    ml.online_endpoints.get("sdk-ep")
    raise AssertionError("the endpoint must be gone")
except (ResourceNotFoundError, HttpResponseError) as error:
    assert error.status_code == 404, error
step("endpoint delete")
ml.models.archive("registered", version="1")
assert not list(ml.models.list("registered"))
ml.models.restore("registered", version="1")
assert [m.version for m in ml.models.list("registered")] == ["1"]
step("model archive, restore")
ml.workspaces.begin_delete("sdk-ws", delete_dependent_resources=True).result()
assert not list(ml.workspaces.list())
step("workspace delete")
print(f"{len(DONE)} steps passed")
