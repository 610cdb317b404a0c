"""What sdk_flow.py leaves out of the azure-ai-ml client's surface: YAML files, updates, references, credentials, edges.

Run with the variables of `casemate env`. Everything happens in one group; each step prints its time.
"""

import base64
import hashlib
import json
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from azure.ai.ml import (
    MLClient,
    load_environment,
    load_model,
    load_online_deployment,
    load_online_endpoint,
    load_workspace,
)
from azure.ai.ml.entities import (
    KubernetesCompute,
    KubernetesOnlineEndpoint,
    ManagedOnlineEndpoint,
    Model,
    Workspace,
)
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import (
    ClientSecretCredential,
    DefaultAzureCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
)

SCORE = """
import hashlib, json, os, pathlib
def init():
    global files
    root = pathlib.Path(os.environ["AZUREML_MODEL_DIR"])
    files = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            with open(path, "rb") as data:
                files[path.name] = hashlib.file_digest(data, "sha256").hexdigest()
    print("ready with", sorted(files), flush=True)
def run(data):
    request = json.loads(data)
    if request.get("fail"):
        raise ValueError("as asked")
    return {"files": files, "flavour": os.environ.get("FLAVOUR"), "root": os.environ["AZUREML_MODEL_DIR"]}
"""

YAML = {
    "workspace.yml": """
$schema: https://azuremlschemas.azureedge.net/latest/workspace.schema.json
name: surface
location: local
display_name: Surface
description: from a file
tags: {purpose: test}
""",
    "endpoint.yml": """
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json
name: surf-ep
description: from a file
auth_mode: key
public_network_access: enabled
tags: {tier: one}
properties: {team: blue}
""",
    "environment.yml": """
name: surf-env
version: "3"
description: third
image: docker.io/library/debian:12
conda_file: conda.yaml
tags: {kind: small}
""",
    "model.yml": """
name: surf-model
version: "1"
type: custom_model
path: model
description: first
tags: {kind: small}
properties: {trained: today}
""",
    "deployment.yml": """
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: blue
endpoint_name: surf-ep
description: from a file
tags: {tier: two}
properties: {team: green}
model: azureml:surf-model:1
code_configuration:
  code: code
  scoring_script: score.py
environment: azureml:surf-env@latest
environment_variables: {FLAVOUR: "first"}
instance_type: Standard_DS3_v2
instance_count: 1
app_insights_enabled: false
model_mount_path: /var/models
egress_public_network_access: enabled
scale_settings: {type: default}
request_settings:
  request_timeout_ms: 7250
  max_concurrent_requests_per_instance: 3
  max_queue_wait_ms: 1750
liveness_probe:
  initial_delay: 11
  period: 12
  timeout: 3
  success_threshold: 1
  failure_threshold: 20
readiness_probe:
  initial_delay: 1
  period: 2
  timeout: 2
  success_threshold: 1
  failure_threshold: 40
""",
    "conda.yaml": """
name: small
channels: [conda-forge]
dependencies:
  - pip:
      - azureml-inference-server-http
""",
}

BEGAN = time.monotonic()
DONE = []
URL, SUBSCRIPTION, GROUP = os.environ["CASEMATE_URL"], os.environ["AZURE_SUBSCRIPTION_ID"], "surface-group"
CONTEXT = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
IDENTITY = [os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"]]


def step(name):
    DONE.append(name)
    print(f"{time.monotonic() - BEGAN:7.2f} s  {name}", flush=True)


def refused(status, call, *words):
    """The call must fail with this status, and the message must hold these words."""
    try:
        call()
    except HttpResponseError as error:
        text = str(error)
        assert error.status_code == status, f"{error.status_code} instead of {status}: {text}"
        for word in words:
            assert word in text, f"'{word}' is missing in: {text}"
        return error
    raise AssertionError(f"should have been refused with {status}")


def raw(method, path, body=None, headers=None, token=None, status=None):
    """One plain request: status, headers, body."""
    uri = path if path.startswith("https://") else f"{URL}{path}"
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(uri, data, method=method)
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", f"Bearer {token or management_token()}")
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, context=CONTEXT, timeout=60) as response:
            seen = response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        seen = error.code, error.headers, error.read()
    text = seen[2].decode(errors="replace")
    assert status is None or seen[0] == status, f"{method} {path}: {seen[0]} instead of {status}: {text}"
    return seen[0], seen[1], json.loads(text) if text.startswith(("{", "[")) else text


def management_token():
    return SECRET.get_token(f"{URL}/.default").token


def gone(call):
    refused(404, call)


def credentials():
    """Every credential that reads its set-up from the caller or the environment can list workspaces."""
    authority = os.environ["AZURE_AUTHORITY_HOST"]
    made = {
        "client secret, the authority as it is": ClientSecretCredential(*IDENTITY, authority=authority),
        "client secret without discovery": ClientSecretCredential(
            *IDENTITY, authority=URL.removeprefix("https://"), disable_instance_discovery=True
        ),
        "environment": EnvironmentCredential(),
        "default": DefaultAzureCredential(),
    }
    for name, credential in made.items():
        list(MLClient(credential, SUBSCRIPTION, GROUP).workspaces.list())
        step(f"credential: {name}")
    # The managed identity is set up by variables of the process, so it gets one of its own.
    program = (
        "import os, sys; from azure.ai.ml import MLClient; import azure.identity as i\n"
        "credential = getattr(i, sys.argv[1])()\n"
        "print([w.name for w in MLClient(credential, sys.argv[2], sys.argv[3]).workspaces.list()])"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")}
    environment["IDENTITY_ENDPOINT"] = f"{URL}/msi/token"
    environment["IDENTITY_HEADER"] = f"{IDENTITY[1]}:{IDENTITY[2]}"
    for kind in ("ManagedIdentityCredential", "DefaultAzureCredential"):
        words = [sys.executable, "-c", program, kind, SUBSCRIPTION, GROUP]
        ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        step(f"credential: managed identity by {kind}")
    wrong = ClientSecretCredential(IDENTITY[0], IDENTITY[1], "wrong")
    try:
        wrong.get_token(f"{URL}/.default")
        raise AssertionError("a wrong secret must be refused")
    except Exception as error:
        assert "7000215" in str(error), error
    ManagedIdentityCredential  # imported for the name above
    step("credential: a wrong secret is refused")


def workspaces():
    everywhere = MLClient(SECRET, SUBSCRIPTION, GROUP)
    loaded = load_workspace(FILES / "workspace.yml")
    everywhere.workspaces.begin_create(loaded).result()
    found = everywhere.workspaces.get("surface")
    assert (found.display_name, found.description, found.tags["purpose"]) == ("Surface", "from a file", "test"), found
    for attribute in ("storage_account", "key_vault", "application_insights", "discovery_url", "mlflow_tracking_uri"):
        assert getattr(found, attribute), attribute
    step("workspace from YAML")
    # A second one on the first one's storage account and vault: they are there, so they are referred to.
    everywhere.workspaces.begin_create(
        Workspace(name="second", location="local", storage_account=found.storage_account, key_vault=found.key_vault)
    ).result()
    second = everywhere.workspaces.get("second")
    assert second.storage_account.lower() == found.storage_account.lower(), second
    assert second.key_vault.lower() == found.key_vault.lower(), second
    step("workspace with existing dependents")
    names = sorted(w.name for w in everywhere.workspaces.list(scope="subscription"))
    assert names == ["second", "surface"], names
    names = sorted(w.name for w in MLClient(SECRET, SUBSCRIPTION, GROUP.upper()).workspaces.list())
    assert names == ["second", "surface"], names
    step("workspaces of the subscription, and of a group in another case")
    query = urllib.request.quote("resourceType eq 'Microsoft.MachineLearningServices/workspaces' and name eq 'surface'")
    listed = raw("GET", f"/subscriptions/{SUBSCRIPTION}/resources?$filter={query}&api-version=2021-04-01", status=200)[2]
    assert [found["name"] for found in listed["value"]] == ["surface"], listed
    assert "/resourceGroups/" in listed["value"][0]["id"], listed
    step("lookup without a group")
    found.tags = {"purpose": "changed"}
    found.display_name, found.public_network_access = "Changed", "Enabled"
    everywhere.workspaces.begin_update(found).result()
    found = everywhere.workspaces.get("surface")
    assert (found.display_name, found.tags["purpose"]) == ("Changed", "changed"), found
    assert found.description == "from a file", found
    step("workspace update keeps the rest")
    everywhere.workspaces.begin_delete("second", delete_dependent_resources=False).result()
    gone(lambda: everywhere.workspaces.get("second"))
    assert everywhere.workspaces.get("surface").storage_account
    step("workspace delete without its dependents")


def assets(ml):
    environment = ml.environments.create_or_update(load_environment(FILES / "environment.yml"))
    assert (environment.name, environment.version, environment.tags) == ("surf-env", "3", {"kind": "small"})
    environment.tags, environment.description = {"kind": "small", "more": "yes"}, "changed"
    ml.environments.create_or_update(environment)
    again = ml.environments.get("surf-env", "3")
    assert (again.tags["more"], again.description) == ("yes", "changed"), again
    assert ml.environments.get("surf-env", label="latest").version == "3"
    assert [e.version for e in ml.environments.list("surf-env")] == ["3"]
    gone(lambda: ml.environments.get("surf-env", "4"))
    step("environment from YAML, update, label, list")
    ml.environments.archive("surf-env", version="3")
    from azure.ai.ml.constants import ListViewType

    assert not list(ml.environments.list("surf-env"))
    assert [e.version for e in ml.environments.list("surf-env", list_view_type=ListViewType.ARCHIVED_ONLY)] == ["3"]
    assert [e.version for e in ml.environments.list("surf-env", list_view_type=ListViewType.ALL)] == ["3"]
    ml.environments.restore("surf-env", version="3")
    step("environment archive, list views, restore")

    model = ml.models.create_or_update(load_model(FILES / "model.yml"))
    assert (model.name, model.version, model.tags["kind"], model.properties["trained"]) == ("surf-model", "1", "small", "today")
    model.tags, model.description = {"kind": "small", "reviewed": "yes"}, "reviewed"
    model = ml.models.create_or_update(model)
    again = ml.models.get("surf-model", "1")
    assert (again.tags["reviewed"], again.description) == ("yes", "reviewed"), again
    step("model from YAML, update")
    # The same files under another name, and without any version: a new version each time, nothing uploaded twice.
    numbered = [ml.models.create_or_update(Model(name="counted", path=FILES / "model")).version for _ in range(2)]
    assert numbered == ["1", "2"], numbered
    assert ml.models.get("counted", label="latest").version == "2"
    assert sorted(m.version for m in ml.models.list("counted")) == ["1", "2"]
    assert ml.models.get("counted", "1").path.split("/paths/")[1] == ml.models.get("counted", "2").path.split("/paths/")[1]
    step("model versions count up, and equal files are stored once")
    refused(409, lambda: ml.models.create_or_update(Model(name="surf-model", version="1", path=FILES / "code")), "already exists")
    step("a registered version keeps its files")
    assert {"surf-model", "counted"} <= {m.name for m in ml.models.list()}
    ml.models.archive("counted", version="2")
    assert [m.version for m in ml.models.list("counted")] == ["1"]
    views = [m.version for m in ml.models.list("counted", list_view_type=ListViewType.ARCHIVED_ONLY)]
    assert views == ["2"], views
    gone(lambda: ml.models.get("absent", "1"))
    step("model list views")


def endpoints(ml):
    ml.online_endpoints.begin_create_or_update(load_online_endpoint(FILES / "endpoint.yml")).result()
    endpoint = ml.online_endpoints.get("surf-ep")
    assert (endpoint.description, endpoint.tags["tier"], endpoint.properties["team"]) == ("from a file", "one", "blue")
    assert endpoint.auth_mode == "key" and endpoint.public_network_access.lower() == "enabled", endpoint
    assert endpoint.identity.type and endpoint.identity.principal_id, endpoint
    before = endpoint.identity.principal_id
    keys = ml.online_endpoints.get_keys("surf-ep")
    endpoint.tags, endpoint.description = {"tier": "three"}, "changed"
    ml.online_endpoints.begin_create_or_update(endpoint).result()
    endpoint = ml.online_endpoints.get("SURF-EP")
    assert (endpoint.description, endpoint.tags, endpoint.properties["team"]) == ("changed", {"tier": "three"}, "blue")
    assert endpoint.identity.principal_id == before
    assert ml.online_endpoints.get_keys("surf-ep").primary_key == keys.primary_key
    step("endpoint from YAML, update")
    path = endpoint.id
    patched = raw("PATCH", f"{path}?api-version=2024-10-01", {"tags": {"tier": "four", "x": "y"}})
    assert patched[0] in (200, 202), patched
    assert ml.online_endpoints.get("surf-ep").tags == {"tier": "four", "x": "y"}
    assert ml.online_endpoints.get("surf-ep").description == "changed"
    step("endpoint PATCH")
    # Conditions.
    headers = raw("GET", f"{path}?api-version=2024-10-01", status=200)[1]
    tag = headers["ETag"]
    raw("PATCH", f"{path}?api-version=2024-10-01", {"tags": {"z": "1"}}, {"If-Match": '"stale"'}, status=412)
    assert raw("PATCH", f"{path}?api-version=2024-10-01", {"tags": {"z": "1"}}, {"If-Match": tag})[0] in (200, 202)
    raw("PATCH", f"{path}?api-version=2024-10-01", {"tags": {"z": "2"}}, {"If-Match": tag}, status=412)
    raw("DELETE", f"{path}?api-version=2024-10-01", None, {"If-Match": tag}, status=412)
    body = {"location": "local", "properties": {"authMode": "Key"}}
    raw("PUT", f"{path}?api-version=2024-10-01", body, {"If-None-Match": "*"}, status=412)
    assert raw("GET", f"{path}?api-version=2024-10-01", headers={"If-None-Match": raw("GET", path)[1]["ETag"]})[0] in (200, 304)
    step("ETag, If-Match, If-None-Match")
    refused(400, lambda: ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="surf-ep", auth_mode="aml_token")).result(), "surf-ep")
    for name, word in (("ab", "at least 3"), ("a" * 33, "at most 32"), ("1abc", "1abc"), ("abc-", "abc-"), ("a_bc", "a_bc")):
        answer = raw("PUT", f"{path.rsplit('/', 1)[0]}/{name}?api-version=2024-10-01", body, status=400)[2]
        assert word in answer["error"]["message"], answer
    gone(lambda: ml.online_endpoints.get("absent"))
    step("endpoint refusals")
    cluster = "/".join(path.split("/")[:-2] + ["computes", "cluster"])
    kubernetes = KubernetesOnlineEndpoint(name="kube-ep", compute=cluster, auth_mode="key")
    refused(501, lambda: ml.online_endpoints.begin_create_or_update(kubernetes).result(), "Kubernetes", "not available")
    compute = KubernetesCompute(name="cluster", resource_id=cluster, namespace="default")
    refused(501, lambda: ml.compute.begin_create_or_update(compute).result(), "Kubernetes", "not available")
    assert not list(ml.compute.list())
    step("Kubernetes is not available yet, in so many words")


def wait(answer):
    """Waits for the operation that an answer names."""
    address = answer[1]["Azure-AsyncOperation"]
    while True:
        operation = raw("GET", address, status=200)[2]
        if operation["status"] not in ("InProgress", "Running", "Accepted"):
            return operation
        time.sleep(0.2)


def deployments(ml):
    ml.online_deployments.begin_create_or_update(load_online_deployment(FILES / "deployment.yml")).result()
    blue = ml.online_deployments.get("blue", "surf-ep")
    assert blue.provisioning_state == "Succeeded", blue
    settings, ready, live = blue.request_settings, blue.readiness_probe, blue.liveness_probe
    # The client itself shows durations in whole seconds; the wire has them exactly.
    assert (settings.request_timeout_ms, settings.max_queue_wait_ms) == (7000, 1000), settings
    wire = raw("GET", f"{blue.id}?api-version=2024-10-01", status=200)[2]["properties"]["requestSettings"]
    assert (wire["requestTimeout"], wire["maxQueueWait"]) == ("PT7.25S", "PT1.75S"), wire
    assert settings.max_concurrent_requests_per_instance == 3, settings
    assert (ready.initial_delay, ready.period, ready.failure_threshold) == (1, 2, 40), ready
    assert (live.initial_delay, live.period, live.timeout, live.failure_threshold) == (11, 12, 3, 20), live
    assert (blue.description, blue.tags, blue.properties["team"]) == ("from a file", {"tier": "two"}, "green"), blue
    assert blue.instance_type == "Standard_DS3_v2", blue
    assert blue.model.endswith("/models/surf-model/versions/1"), blue.model
    assert blue.environment.endswith("/environments/surf-env/versions/3"), blue.environment
    step("deployment from YAML with references by name:version and @latest")

    # A fetched deployment can be sent back: everything survives, and only what changed changes.
    blue.request_settings.request_timeout_ms, blue.request_settings.max_queue_wait_ms = 8000, 750
    ml.online_deployments.begin_create_or_update(blue).result()
    before = raw("GET", f"{blue.id}?api-version=2024-10-01", status=200)[2]
    assert before["properties"]["requestSettings"]["maxQueueWait"] == "PT0.75S", before
    # The client reads 750 ms as 0 and then sends nothing for it.
    blue = ml.online_deployments.get("blue", "surf-ep")
    blue.environment_variables["FLAVOUR"] = "second"
    ml.online_deployments.begin_create_or_update(blue).result()
    after = raw("GET", f"{blue.id}?api-version=2024-10-01", status=200)[2]
    changed = {key for key in after["properties"] if after["properties"][key] != before["properties"].get(key)}
    assert changed == {"environmentVariables"}, (changed, before, after)
    assert set(after["properties"]) == set(before["properties"]) and after["sku"] == before["sku"]
    step("a fetched deployment, changed and sent back")
    scaled = raw("PATCH", f"{blue.id}?api-version=2024-10-01", {"sku": {"name": "Default", "capacity": 2}})
    assert scaled[0] in (200, 202), scaled
    assert wait(scaled)["status"] == "Succeeded"
    again = ml.online_deployments.get("blue", "surf-ep")
    assert (again.instance_count, again.environment_variables["FLAVOUR"]) == (2, "second"), again
    assert [d.name for d in ml.online_deployments.list("surf-ep")] == ["blue"]
    step("deployment PATCH of the scale")

    endpoint = ml.online_endpoints.get("surf-ep")
    endpoint.traffic = {"blue": 100}
    ml.online_endpoints.begin_create_or_update(endpoint).result()
    endpoint = ml.online_endpoints.get("surf-ep")
    assert endpoint.traffic == {"blue": 100}
    key = ml.online_endpoints.get_keys("surf-ep").primary_key
    answer = raw("POST", endpoint.scoring_uri, {}, token=key, status=200)[2]
    assert answer["flavour"] == "second" and answer["root"].startswith("/var/models"), answer
    assert list(answer["files"]) == ["model.txt"], answer
    step("score, with the model at its mount path")
    for traffic, word in (({"blue": 99}, "100"), ({"absent": 100}, "absent"), ({"blue": 101}, "10")):
        endpoint.traffic = traffic
        refused(400, lambda: ml.online_endpoints.begin_create_or_update(endpoint).result(), word)
    assert ml.online_endpoints.get("surf-ep").traffic == {"blue": 100}
    step("traffic refusals")

    (FILES / "fail.json").write_text('{"fail": true}')
    error = refused(424, lambda: ml.online_endpoints.invoke("surf-ep", request_file=str(FILES / "fail.json")))
    assert error.response.headers["ms-azureml-model-error-statuscode"] == "500", error.response.headers
    refused(401, lambda: score_with(ml, endpoint.scoring_uri, "wrong"))
    (FILES / "ok.json").write_text("{}")
    try:
        ml.online_endpoints.invoke("surf-ep", request_file=str(FILES / "ok.json"), deployment_name="absent")
        raise AssertionError("an unknown deployment must be refused")
    except Exception as error:
        assert "absent" in str(error), error
    gone(lambda: ml.online_endpoints.invoke("absent", request_file=str(FILES / "ok.json")))
    step("invoke errors")

    logs = ml.online_deployments.get_logs("blue", "surf-ep", lines=500)
    assert "ready with ['model.txt']" in logs, logs
    assert len(ml.online_deployments.get_logs("blue", "surf-ep", lines=2).splitlines()) <= 2
    ml.online_deployments.get_logs("blue", "surf-ep", lines=50, container_type="storage-initializer")
    raw("POST", f"{blue.id}/getLogs?api-version=2024-10-01", {"tail": 5, "containerType": "Other"}, status=400)
    gone(lambda: ml.online_deployments.get_logs("absent", "surf-ep", lines=5))
    gone(lambda: ml.online_deployments.get("absent", "surf-ep"))
    step("logs by container and tail")


def score_with(ml, uri, key):
    status, headers, body = raw("POST", uri, {}, token=key)
    if status >= 400:
        assert headers["WWW-Authenticate"] or status != 401, headers
        error = HttpResponseError(message=str(body))
        error.status_code = status
        raise error


def big_model(ml):
    """More than 64 MiB goes up in blocks; what run() sees has the checksum of what was sent."""
    (FILES / "big").mkdir()
    digest = hashlib.sha256()
    with open(FILES / "big" / "weights.bin", "wb") as out:
        for number in range(70):
            block = hashlib.sha256(str(number).encode()).digest() * (1 << 15)
            digest.update(block)
            out.write(block)
    big = ml.models.create_or_update(Model(name="big", version="1", path=FILES / "big"))
    step("70 MiB model upload")
    blue = ml.online_deployments.get("blue", "surf-ep")
    blue.model, blue.instance_count = big.id, 1
    ml.online_deployments.begin_create_or_update(blue).result()
    key = ml.online_endpoints.get_keys("surf-ep").primary_key
    answer = raw("POST", ml.online_endpoints.get("surf-ep").scoring_uri, {}, token=key, status=200)[2]
    assert answer["files"] == {"weights.bin": digest.hexdigest()}, answer
    step("the model's run() sees every byte of it")
    ml.models.download("big", version="1", download_path=str(FILES / "back"))
    back = next((FILES / "back").rglob("weights.bin"))
    assert hashlib.sha256(back.read_bytes()).hexdigest() == digest.hexdigest()
    step("and so does a download")


def auth_modes(ml):
    for mode in ("key", "aml_token", "aad_token"):
        name = "mode-" + mode.replace("_", "-")
        ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name=name, auth_mode=mode)).result()
        path = ml.online_endpoints.get(name).id
        keys = raw("POST", f"{path}/listKeys?api-version=2024-10-01")
        token = raw("POST", f"{path}/token?api-version=2024-10-01")
        fresh = raw("POST", f"{path}/regenerateKeys?api-version=2024-10-01", {"keyType": "Primary"})
        seen = (keys[0], token[0], fresh[0] < 300)
        wanted = {"key": (200, 400, True), "aml_token": (400, 200, False), "aad_token": (400, 400, False)}[mode]
        assert seen == wanted, (mode, seen, keys, token, fresh)
        held = ml.online_endpoints.get_keys(name)
        if mode == "key":
            assert held.primary_key and held.secondary_key and held.primary_key != held.secondary_key
        else:
            assert held.access_token, held
        if mode == "aml_token":
            assert held.expiry_time_utc > held.refresh_after_time_utc > time.time(), held
            claims = held.access_token.split(".")[1]
            json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        ml.online_endpoints.begin_delete(name).result()
    step("keys and tokens by auth mode")


def names_again(ml):
    for _ in range(5):
        ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="again")).result()
        ml.online_endpoints.begin_delete("again").result()
        gone(lambda: ml.online_endpoints.get("again"))
    ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="again")).result()
    status = raw("PUT", ml.online_endpoints.get("again").id.replace("/again", "/AGAIN"), {"location": "local", "properties": {}})[0]
    assert status in (200, 201, 202), status
    assert [e.name for e in ml.online_endpoints.list() if e.name.lower() == "again"] == ["again"]
    ml.online_endpoints.begin_delete("again").result()
    assert raw("DELETE", f"{ml.online_endpoints.get('surf-ep').id}x")[0] == 204
    step("a name is free again at once, five times over")


def deletes(ml):
    everywhere = MLClient(SECRET, SUBSCRIPTION, GROUP)
    refused(409, lambda: ml.online_deployments.begin_delete("blue", "surf-ep").result(), "blue", "traffic")
    ml.online_endpoints.begin_delete("surf-ep").result()
    gone(lambda: ml.online_deployments.get("blue", "surf-ep"))
    step("an endpoint goes with its deployments")
    everywhere.workspaces.begin_delete("surface", delete_dependent_resources=True).result()
    gone(lambda: everywhere.workspaces.get("surface"))
    everywhere.workspaces.begin_create(load_workspace(FILES / "workspace.yml")).result()
    fresh = MLClient(SECRET, SUBSCRIPTION, GROUP, "surface")
    assert not list(fresh.models.list()) and not list(fresh.online_endpoints.list())
    step("a workspace made again is empty")
    path = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}"
    accepted = raw("DELETE", f"{path}?api-version=2021-04-01", status=202)
    while raw("GET", accepted[1]["Location"])[0] == 202:
        time.sleep(0.2)
    assert raw("HEAD", f"{path}?api-version=2021-04-01")[0] == 404
    assert not list(everywhere.workspaces.list(scope="subscription"))
    step("a group goes with all that is in it")


SECRET = ClientSecretCredential(*IDENTITY)
FILES = pathlib.Path(tempfile.mkdtemp(prefix="sdk-surface-"))
for directory, name, text in (("code", "score.py", SCORE), ("model", "model.txt", "forty-two\n")):
    (FILES / directory).mkdir()
    (FILES / directory / name).write_text(text)
for name, text in YAML.items():
    (FILES / name).write_text(text)
made = raw("PUT", f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}?api-version=2021-04-01", {"location": "local"})
assert made[0] in (200, 201), made
credentials()
workspaces()
client = MLClient(DefaultAzureCredential(), SUBSCRIPTION, GROUP, "surface")
assets(client)
endpoints(client)
deployments(client)
big_model(client)
auth_modes(client)
names_again(client)
deletes(client)
print(f"{len(DONE)} steps passed")
