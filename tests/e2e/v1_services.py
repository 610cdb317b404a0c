"""Models and web services with the unmodified azureml-core client: register, download, deploy to ACI and AKS, run, keys,
tokens, update, logs, endpoints of several versions, certificates, wrong inputs, delete.

Run with the variables of `casemate env` and a HOME of its own. Each step prints its time.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse

import requests
from azureml.core import Environment, Model, Webservice, Workspace
from azureml.core.authentication import ServicePrincipalAuthentication
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.model import InferenceConfig
from azureml.core.webservice import AciWebservice, AksEndpoint, AksWebservice
from azureml.exceptions import WebserviceException

SUBSCRIPTION = os.environ["AZURE_SUBSCRIPTION_ID"]
FRONT = urllib.parse.urlsplit(os.environ["CASEMATE_URL"])
PLATFORM_CA = os.environ["SSL_CERT_FILE"]
TEMP = pathlib.Path(tempfile.mkdtemp(prefix="v1-services-"))
passed = 0

SCORE = """
import json, os
from helper import flavour
def init():
    global model, where
    where = os.environ["AZUREML_MODEL_DIR"]
    with open(os.path.join(where, "diabetes.json")) as f:
        model = json.load(f)
    print("init of", flavour(), flush=True)
def run(data):
    rows = json.loads(data)["data"]
    predict = lambda row: sum(a * b for a, b in zip(model["weights"], row)) + model["bias"]
    return {"predictions": [predict(row) for row in rows], "flavour": flavour(), "where": where}
"""

# As the samples of this SDK look for their model.
SCORE_BOTH = """
import json, os, time
def init():
    global found
    root = os.environ["AZUREML_MODEL_DIR"]
    found = sorted(os.path.relpath(os.path.join(d, f), root) for d, _, fs in os.walk(root) for f in fs)
def run(data):
    time.sleep(json.loads(data).get("sleep", 0))
    return {"found": found, "app_root": os.environ["AML_APP_ROOT"], "service": os.environ["SERVICE_NAME"]}
"""

BROKEN = """
def init():
    raise RuntimeError("no such weights")
def run(data):
    return 0
"""

HELPER = """
import os
def flavour():
    return os.environ.get("FLAVOUR", "none")
"""

BODY = json.dumps({"data": [[1, 2, 3], [0, 0, 0]]})


def step(name):
    def run(work):
        global passed
        begun = time.monotonic()
        said = work()
        passed += 1
        print(f"{time.monotonic() - begun:7.2f} s  {name}" + (f": {said}" if said else ""), flush=True)

    return run


def refused(words, work):
    """Insists that the server refuses with these words."""
    try:
        work()
    except WebserviceException as error:
        assert words.lower() in str(error).lower(), f"{words!r} is not in {error}"
        return
    raise AssertionError(f"not refused with {words!r}")


def environment(flavour):
    made = Environment("small")
    made.python.conda_dependencies = CondaDependencies.create(
        python_version="3.11", pip_packages=["azureml-inference-server-http"]
    )
    made.environment_variables = {"FLAVOUR": flavour}
    return made


def inference(flavour, script="score.py", directory="code"):
    return InferenceConfig(entry_script=script, source_directory=str(TEMP / directory), environment=environment(flavour))


def waited(service):
    service.wait_for_deployment(show_output=False)
    assert service.state == "Healthy", (service.state, service.error)
    return service


def certificate(name, days=30):
    """A certificate of its own, self-signed; gives the files of chain and key."""
    chain, key = TEMP / f"{name}.pem", TEMP / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days)]
        + ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(chain)],
        check=True,
        capture_output=True,
    )
    return str(chain), str(key)


def served(name, ca):
    """The SHA-256 fingerprint of what is served for a name, verified as a client would."""
    context = ssl.create_default_context(cafile=str(ca))
    with socket.create_connection((FRONT.hostname, FRONT.port), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname=name) as secure:
            return hashlib.sha256(secure.getpeercert(binary_form=True)).hexdigest()


def file_fingerprint(chain):
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pathlib.Path(chain).read_text())).hexdigest()


def call(uri, ca, key=None):
    """Scores at a name that need not resolve: to the front door, with the name as SNI and Host."""
    parts = urllib.parse.urlsplit(uri)
    context = ssl.create_default_context(cafile=str(ca))
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {key}\r\n" if key else ""
    head += f"Content-Length: {len(BODY)}\r\nConnection: close\r\n\r\n{BODY}"
    with socket.create_connection((FRONT.hostname, FRONT.port), timeout=30) as plain:
        with context.wrap_socket(plain, server_hostname=parts.hostname) as secure:
            secure.sendall(head.encode())
            answer = b""
            while part := secure.recv(65536):
                answer += part
    status, _, rest = answer.partition(b"\r\n")
    return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]


for directory, files in {
    "code": {"score.py": SCORE, "helper.py": HELPER},
    "both": {"score.py": SCORE_BOTH},
    "broken": {"score.py": BROKEN},
}.items():
    (TEMP / directory).mkdir()
    for file, text in files.items():
        (TEMP / directory / file).write_text(text)
os.chdir(TEMP)
(TEMP / "diabetes.json").write_text(json.dumps({"weights": [1, 10, 100], "bias": 0.5}))
(TEMP / "folder" / "deep").mkdir(parents=True)
(TEMP / "folder" / "one.txt").write_text("one")
(TEMP / "folder" / "deep" / "two words.txt").write_text("two")

auth = ServicePrincipalAuthentication(
    os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"]
)
ws = Workspace.get("main", auth=auth, subscription_id=SUBSCRIPTION, resource_group="rg")


@step("register a model of one file")
def _():
    global model
    model = Model.register(
        ws,
        "diabetes.json",
        "diabetes",
        tags={"area": "diabetes", "type": "regression"},
        properties={"accuracy": "0.9"},
        description="Ridge regression",
        model_framework=Model.Framework.SCIKITLEARN,
        model_framework_version="1.5",
    )
    assert (model.name, model.version, model.id) == ("diabetes", 1, "diabetes:1"), model
    assert model.tags["area"] == "diabetes" and model.properties == {"accuracy": "0.9"}
    assert (model.model_framework, model.description) == ("ScikitLearn", "Ridge regression")


@step("register a model of a directory, and a second version")
def _():
    global folder
    folder = Model.register(ws, "folder", "folder")
    assert Model.register(ws, "diabetes.json", "diabetes").version == 2


@step("models: get, list, tags, latest, run over pages")
def _():
    assert Model(ws, "diabetes").version == 2
    assert Model(ws, "diabetes", version=1).tags["type"] == "regression"
    assert {m.id for m in Model.list(ws)} == {"diabetes:1", "diabetes:2", "folder:1"}
    assert [m.version for m in Model.list(ws, name="diabetes", latest=True)] == [2]
    assert [m.id for m in Model.list(ws, tags=[["area", "diabetes"]])] == ["diabetes:1"]
    assert [m.id for m in Model.list(ws, tags=["area", ["type", "other"]])] == []
    assert [m.id for m in Model.list(ws, model_framework="ScikitLearn")] == ["diabetes:1"]
    for number in range(21):
        with open("small.txt", "w") as f:
            f.write(str(number))
        Model.register(ws, "small.txt", "many")
    assert len(Model.list(ws, name="many", page_count=20)) == 21


@step("models: change tags and properties")
def _():
    model.add_tags({"more": "yes"})
    model.remove_tags("type")
    model.add_properties({"new": "1"})
    model.update(description="changed")
    again = Model(ws, id="diabetes:1")
    assert again.tags == {"area": "diabetes", "more": "yes"}, again.tags
    assert again.properties == {"accuracy": "0.9", "new": "1"} and again.description == "changed"


@step("models: download a file and a directory")
def _():
    path = Model(ws, id="diabetes:1").download(target_dir=str(TEMP / "down"))
    assert json.loads(pathlib.Path(path).read_text())["bias"] == 0.5, path
    folder.download(target_dir=str(TEMP / "down2"))
    assert (TEMP / "down2/folder/deep/two words.txt").read_text() == "two"


@step("models: 80 MiB up and down")
def _():
    block = os.urandom(1 << 20)
    with open("large.bin", "wb") as f:
        for _ in range(80):
            f.write(block)
    begun = time.monotonic()
    large = Model.register(ws, "large.bin", "large")
    up = time.monotonic() - begun
    path = large.download(target_dir=str(TEMP / "down3"))
    assert pathlib.Path(path).stat().st_size == 80 << 20
    digest = lambda name: hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest()
    assert digest(path) == digest("large.bin")
    large.delete()
    return f"up {up:.1f} s"


@step("models: wrong inputs")
def _():
    refused("ModelNotFound", lambda: Model(ws, "nothing"))
    refused("ModelNotFound", lambda: Model(ws, id="diabetes:77"))


def deploy_aci():
    return Model.deploy(
        ws,
        "aci-one",
        [model],
        inference("vanilla"),
        AciWebservice.deploy_configuration(cpu_cores=0.1, memory_gb=0.5, tags={"a": "b"}, description="first"),
    )


@step("ACI: deploy, wait")
def _():
    global aci
    aci = waited(deploy_aci())
    assert aci.compute_type == "ACI" and aci.auth_enabled is False and aci.ssl_enabled is False
    assert aci.tags == {"a": "b"} and aci.description == "first"
    assert [m.id for m in aci.models] == ["diabetes:1"]
    assert aci.scoring_uri.endswith("/api/v1/service/aci-one/score"), aci.scoring_uri
    return aci.scoring_uri


@step("ACI: run without credentials")
def _():
    answer = aci.run(BODY)
    assert answer["predictions"] == [321.5, 0.5] and answer["flavour"] == "vanilla", answer
    assert answer["where"] == "/var/azureml-app/azureml-models/diabetes/1", answer
    assert requests.post(aci.scoring_uri, data=BODY, timeout=20).status_code == 200


@step("ACI: logs, swagger, serialize, list")
def _():
    assert "init of vanilla" in aci.get_logs(), aci.get_logs()
    assert "diabetes" in aci.get_logs(init=True)
    assert requests.get(aci.swagger_uri, timeout=20).status_code == 200
    assert aci.serialize()["scoringUri"] == aci.scoring_uri
    assert [s.name for s in Webservice.list(ws, compute_type="ACI")] == ["aci-one"]
    assert [s.name for s in Webservice.list(ws, model_id="diabetes:1")] == ["aci-one"]
    assert Webservice.list(ws, tags=[["a", "c"]]) == []


@step("ACI: a name is taken, a model is used")
def _():
    refused("already a service with name aci-one", deploy_aci)
    refused("used by the service 'aci-one'", model.delete)


@step("ACI: update the code and enable keys")
def _():
    aci.update(inference_config=inference("strawberry"), models=[model], auth_enabled=True, tags={"c": "d"})
    waited(aci)
    assert aci.auth_enabled and aci.tags == {"c": "d"}
    answer = aci.run(BODY)
    assert answer["flavour"] == "strawberry", answer
    assert requests.post(aci.scoring_uri, data=BODY, timeout=20).status_code == 401


@step("keys: get, regenerate, set")
def _():
    first, second = aci.get_keys()
    aci.regen_key("Primary")
    new, same = aci.get_keys()
    assert new != first and same == second
    send = lambda key: requests.post(aci.scoring_uri, data=BODY, headers={"Authorization": f"Bearer {key}"}, timeout=20)
    assert send(first).status_code == 401 and send(new).status_code == 200 and send(second).status_code == 200
    aci.regen_key("Secondary", set_key="x" * 32)
    assert aci.get_keys()[1] == "x" * 32 and send("x" * 32).status_code == 200
    refused("keyValue", lambda: aci.regen_key("Secondary", set_key="short"))


@step("a failing update leaves the service serving")
def _():
    aci.update(inference_config=inference("x", directory="broken"), models=[model])
    refused("no such weights", lambda: aci.wait_for_deployment())
    again = Webservice(ws, "aci-one")
    assert again.state == "Failed" and again.run(BODY)["flavour"] == "strawberry"
    again.update(inference_config=inference("mended"), models=[model])
    assert waited(again).run(BODY)["flavour"] == "mended"


@step("compute without TLS")
def _():
    global plain_compute
    plain_compute = ComputeTarget.create(ws, "plain-pool", AksCompute.provisioning_configuration())
    plain_compute.wait_for_completion()
    assert plain_compute.provisioning_state == "Succeeded"


@step("AKS: deploy two models with the defaults")
def _():
    global aks
    aks = Model.deploy(
        ws, "aks-one", [model, folder], inference("two", directory="both"), AksWebservice.deploy_configuration(), plain_compute
    )
    waited(aks)
    scaler, needs, probe = aks.autoscaler, aks.container_resource_requirements, aks.liveness_probe_requirements
    assert (scaler.autoscale_enabled, scaler.min_replicas, scaler.max_replicas) == (True, 1, 10), scaler.serialize()
    assert (scaler.refresh_period_seconds, scaler.target_utilization) == (1, 70)
    assert (needs.cpu, needs.memory_in_gb) == (0.1, 0.5)
    assert (aks.scoring_timeout_ms, aks.max_request_wait_time, aks.max_concurrent_requests_per_container) == (60000, 500, 1)
    assert probe.serialize() == {
        "periodSeconds": 10,
        "initialDelaySeconds": 310,
        "timeoutSeconds": 2,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert aks.auth_enabled is True and aks.token_auth_enabled is False and aks.compute_name == "plain-pool"


@step("AKS: run with keys, models side by side")
def _():
    answer = aks.run(BODY)
    assert answer["found"] == ["diabetes/1/diabetes.json", "folder/1/folder/deep/two words.txt", "folder/1/folder/one.txt"]
    assert (answer["app_root"], answer["service"]) == ("/var/azureml-app", "aks-one")
    assert requests.post(aks.scoring_uri, data=BODY, timeout=20).status_code == 401


@step("AKS: one request at once, half a second in the queue, then 503")
def _():
    slow, headers = json.dumps({"sleep": 3}), {"Authorization": f"Bearer {aks.get_keys()[0]}"}
    send = lambda _: requests.post(aks.scoring_uri, data=slow, headers=headers, timeout=30).status_code
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(send, range(4)))
    assert statuses == [200, 503, 503, 503], statuses


@step("AKS: tokens instead of keys")
def _():
    refused("both", lambda: aks.update(token_auth_enabled=True, auth_enabled=True))
    aks.update(token_auth_enabled=True, auth_enabled=False)
    waited(aks)
    token = aks.get_access_token()
    assert token.token_type == "Bearer" and token.refresh_after < token.expiry_on
    assert aks.run(BODY)["service"] == "aks-one"
    refused("authenticates by tokens", aks.get_keys)


@step("AKS: scale, limits, settings that can't be")
def _():
    aks.update(autoscale_enabled=False, num_replicas=2, scoring_timeout_ms=9000, description="two")
    waited(aks)
    assert (aks.num_replicas, aks.scoring_timeout_ms, aks.description) == (2, 9000, "two")
    assert aks.deployment_status["availableReplicas"] == 2
    refused("180000", lambda: aks.update(scoring_timeout_ms=200000))


@step("wrong inputs: compute, GPU, image")
def _():
    config = AksWebservice.deploy_configuration(compute_target_name="nowhere")
    refused("no compute 'nowhere'", lambda: Model.deploy(ws, "aks-two", [model], inference("x"), config))
    config = AksWebservice.deploy_configuration(gpu_cores=1)
    refused("GPU", lambda: Model.deploy(ws, "aks-two", [model], inference("x"), config, plain_compute))
    image = inference("x")
    image.environment.python.user_managed_dependencies = True
    config = AciWebservice.deploy_configuration()
    refused("runs no images", lambda: Model.deploy(ws, "aci-two", [model], image, config))
    try:
        Webservice(ws, "nothing")
        raise AssertionError("found")
    except WebserviceException as error:
        assert "WebserviceNotFound" in str(error)


@step("AksEndpoint: a version, a second one, traffic")
def _():
    config = AksEndpoint.deploy_configuration(
        cpu_cores=0.1, memory_gb=0.5, version_name="one", traffic_percentile=20, compute_target_name="plain-pool"
    )
    endpoint = waited(Model.deploy(ws, "endpoint", [model], inference("one"), config, plain_compute))
    assert set(endpoint.versions) == {"one"} and endpoint.versions["one"].is_default, endpoint.versions
    assert {endpoint.run(BODY)["flavour"] for _ in range(3)} == {"one"}
    endpoint.create_version("two", models=[model], inference_config=inference("two"), traffic_percentile=50)
    waited(endpoint)
    versions = endpoint.versions
    assert versions["two"].traffic_percentile == 50 and not versions["two"].is_default
    assert versions["one"].version_type == "Control" and versions["two"].version_type == "Treatment"
    seen = [endpoint.run(BODY)["flavour"] for _ in range(40)]
    assert set(seen) == {"one", "two"}, seen


@step("AksEndpoint: default, type, delete a version, too much traffic")
def _():
    endpoint = Webservice(ws, "endpoint")
    refused("120 %", lambda: endpoint.update_version("two", traffic_percentile=100))
    endpoint.update_version("one", traffic_percentile=0)
    waited(endpoint)
    endpoint.update_version("two", traffic_percentile=100, is_default=True, is_control_version_type=True)
    waited(endpoint)
    assert endpoint.versions["two"].is_default and endpoint.versions["two"].version_type == "Control"
    assert {endpoint.run(BODY)["flavour"] for _ in range(10)} == {"two"}
    endpoint.delete_version("one")
    endpoint.wait_for_deployment()
    assert set(Webservice(ws, "endpoint").versions) == {"two"}
    endpoint.delete()
    assert [s.name for s in Webservice.list(ws, compute_type="AKSENDPOINT")] == []


@step("ACI with its own certificate")
def _():
    chain, key = certificate("score.contoso.example")
    config = AciWebservice.deploy_configuration(
        cpu_cores=0.1,
        memory_gb=0.5,
        ssl_enabled=True,
        ssl_cert_pem_file=chain,
        ssl_key_pem_file=key,
        ssl_cname="score.contoso.example",
        dns_name_label="contoso-score",
        auth_enabled=True,
    )
    service = waited(Model.deploy(ws, "aci-tls", [model], inference("tls"), config))
    assert service.ssl_enabled and service.cname == "score.contoso.example"
    assert service.ssl_key is None and service.ssl_certificate is None
    assert service.public_fqdn == "contoso-score.local.azurecontainer.casemate.internal", service.public_fqdn
    assert service.scoring_uri == f"https://score.contoso.example:{FRONT.port}/score", service.scoring_uri
    assert served("score.contoso.example", chain) == file_fingerprint(chain)
    status, body = call(service.scoring_uri, chain, service.get_keys()[0])
    assert status == 200 and json.loads(body)["flavour"] == "tls", (status, body)
    assert call(service.scoring_uri, chain)[0] == 401


@step("ACI: replace the certificate, wrong certificates, turn TLS off")
def _():
    service = Webservice(ws, "aci-tls")
    before = TEMP / "score.contoso.example.pem"
    other_chain, other_key = certificate("other.contoso.example")
    old = file_fingerprint(before)
    refused("other.contoso.example", lambda: service.update(ssl_enabled=True, ssl_cert_pem_file=other_chain, ssl_key_pem_file=other_key))
    refused("belong together", lambda: service.update(ssl_enabled=True, ssl_cert_pem_file=other_chain))
    refused("key", lambda: service.update(ssl_enabled=True, ssl_cert_pem_file=str(before), ssl_key_pem_file=other_key))
    assert served("score.contoso.example", before) == old
    chain, key = certificate("score.contoso.example")
    service.update(ssl_enabled=True, ssl_cert_pem_file=chain, ssl_key_pem_file=key)
    waited(service)
    assert served("score.contoso.example", chain) == file_fingerprint(chain) != old
    service.update(ssl_enabled=False)
    waited(service)
    assert not service.ssl_enabled and service.scoring_uri.endswith("/api/v1/service/aci-tls/score")
    assert service.run(BODY)["flavour"] == "tls"
    try:
        served("score.contoso.example", chain)
        raise AssertionError("still served")
    except (ssl.SSLError, ConnectionError):
        pass
    service.delete()


@step("a service on a TLS compute inherits TLS")
def _():
    config = AksCompute.provisioning_configuration()
    config.enable_ssl(leaf_domain_label="contoso")
    compute = ComputeTarget.create(ws, "tls-pool", config)
    compute.wait_for_completion()
    service = waited(
        Model.deploy(ws, "aks-tls", [model], inference("inherited"), AksWebservice.deploy_configuration(), compute)
    )
    host = urllib.parse.urlsplit(service.scoring_uri).hostname
    assert host.startswith("contoso") and host.endswith(".local.cloudapp.casemate.internal"), service.scoring_uri
    assert service.scoring_uri == f"https://{host}:{FRONT.port}/api/v1/service/aks-tls/score"
    status, body = call(service.scoring_uri, PLATFORM_CA, service.get_keys()[0])
    assert status == 200 and json.loads(body)["flavour"] == "inherited", (status, body)
    service.delete()
    return service.scoring_uri


@step("delete")
def _():
    for service in Webservice.list(ws):
        service.delete()
    assert Webservice.list(ws) == []
    folder.delete()
    assert "folder:1" not in {m.id for m in Model.list(ws)}


print(f"{passed} steps passed")
