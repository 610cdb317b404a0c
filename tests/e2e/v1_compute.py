"""The first walkthrough's lines about workspaces and computes with the unmodified azureml-core client.

Run with the variables of `casemate env`, a HOME of its own, and the path of the program as argument. Each step prints
its time; certificates are looked at as a client sees them, by a handshake with the front door.
"""

import hashlib
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

from azureml.core import Workspace
from azureml.core.authentication import ServicePrincipalAuthentication, TokenAuthentication
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.compute.aks import AksUpdateConfiguration, SslConfiguration
from azureml.exceptions import ComputeTargetException

CASEMATE = sys.argv[1]
SUBSCRIPTION = os.environ["AZURE_SUBSCRIPTION_ID"]
FRONT = urllib.parse.urlsplit(os.environ["CASEMATE_URL"])
PLATFORM_CA = os.environ["SSL_CERT_FILE"]
TEMP = pathlib.Path(tempfile.mkdtemp())
SUFFIX = ".local.cloudapp.casemate.internal"
passed = 0


def step(name):
    def run(work):
        global passed
        begun = time.monotonic()
        said = work()
        passed += 1
        print(f"{time.monotonic() - begun:7.2f} s  {name}" + (f": {said}" if said else ""), flush=True)

    return run


def served(name, ca=PLATFORM_CA):
    """The SHA-256 fingerprint and the serial number of what is served for a name, verified as a client would."""
    context = ssl.create_default_context(cafile=str(ca))
    with socket.create_connection((FRONT.hostname, FRONT.port), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname=name) as secure:
            der = secure.getpeercert(binary_form=True)
            return hashlib.sha256(der).hexdigest(), secure.getpeercert()["serialNumber"], secure.version()


def fingerprint(name, ca=PLATFORM_CA):
    return served(name, ca)[0]


def is_served(name, ca=PLATFORM_CA):
    try:
        served(name, ca)
        return True
    except (ssl.SSLError, ConnectionError):
        return False


def until_changed(name, before, ca=PLATFORM_CA, limit=60):
    """Seconds until another certificate is served for a name."""
    begun = time.monotonic()
    while time.monotonic() - begun < limit:
        if is_served(name, ca) and fingerprint(name, ca) != before:
            return time.monotonic() - begun
        time.sleep(0.02)
    raise AssertionError(f"the certificate of {name} is still the one from before after {limit} s")


class Callers:
    """Requests to a name without a pause, over new connections and over one that is kept, until the end of the block."""

    def __init__(self, name):
        self.name, self.count, self.failed, self.over = name, 0, [], threading.Event()
        self.context = ssl.create_default_context(cafile=PLATFORM_CA)
        self.threads = [threading.Thread(target=self.call, args=(kept,)) for kept in (False, True)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def connect(self):
        plain = socket.create_connection((FRONT.hostname, FRONT.port), timeout=20)
        return self.context.wrap_socket(plain, server_hostname=self.name)

    def call(self, kept):
        secure = None
        request = f"GET /api/v1/service/none/score HTTP/1.1\r\nHost: {self.name}\r\n\r\n".encode()
        while not self.over.is_set():
            try:
                secure = secure or self.connect()
                secure.sendall(request)
                answer = secure.recv(65536)
                # There is no such service; that it is said so is what counts.
                assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
                self.count += 1
                if not kept:
                    secure.close()
                    secure = None
            except Exception as error:  # Whatever a caller would see.
                self.failed.append(repr(error))
                secure = None
            time.sleep(0.01)


def openssl(*words):
    subprocess.run(["openssl", *words], cwd=TEMP, check=True, capture_output=True)


def authority(name):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
            "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "30", "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return TEMP / f"{name}.pem"


def certificate(file, cname, issuer, days=30):
    """A certificate of a company's own authority: `file`.pem and `file`.key."""
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{file}.key", "-out",
            f"{file}.csr", "-subj", f"/CN={cname}")
    (TEMP / f"{file}.ext").write_text(f"subjectAltName=DNS:{cname}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
    openssl("x509", "-req", "-in", f"{file}.csr", "-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial",
            "-out", f"{file}.leaf", "-days", str(days), "-extfile", f"{file}.ext")
    # The full chain.
    (TEMP / f"{file}.pem").write_text((TEMP / f"{file}.leaf").read_text() + (TEMP / f"{issuer}.pem").read_text())
    return TEMP / f"{file}.pem", TEMP / f"{file}.key"


def casemate(*words, fails=False):
    done = subprocess.run([CASEMATE, *words], capture_output=True, text=True)
    assert (done.returncode != 0) == fails, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr if fails else done.stdout


def refused(said, work):
    try:
        work()
    except ComputeTargetException as error:
        # The client shows the answer as Python writes bytes.
        shown = str(error).replace("\\'", "'")
        assert said in shown, f"'{said}' is not in: {shown}"
        return
    raise AssertionError(f"not refused; expected '{said}'")


def change(target, ssl_configuration):
    """The article's lines for every change, and the wait for its end."""
    update_config = AksUpdateConfiguration(ssl_configuration)
    target.update(update_config)
    target.wait_for_completion(show_output=False)
    return target


def put(compute, ssl_configuration):
    """What the client itself would not send."""
    body = {"location": "local", "properties": {"computeType": "AKS", "properties": {"sslConfiguration": ssl_configuration}}}
    ComputeTarget._create_compute_target(ws, compute, body, AksCompute)


def shown(name):
    return json.loads(casemate("ml", "computetarget", "show", "-n", name, "-g", "v1", "-w", "legacy"))["properties"]


def proven(name, cname, ca=PLATFORM_CA):
    """What the platform says is served is what is served."""
    facts = shown(name)["casemate"]["certificate"]
    assert facts["sha256"] == fingerprint(cname, ca), facts
    return facts


auth = ServicePrincipalAuthentication(
    os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"]
)


@step("workspace: create, get, list, from_config")
def _():
    global ws
    Workspace.create("legacy", auth=auth, subscription_id=SUBSCRIPTION, resource_group="v1", location="local", show_output=False)
    ws = Workspace.get("legacy", auth=auth, subscription_id=SUBSCRIPTION, resource_group="v1")
    assert (ws.name, ws.resource_group, ws.location) == ("legacy", "v1", "local")
    assert "legacy" in Workspace.list(SUBSCRIPTION, auth=auth, resource_group="v1")
    ws.write_config(str(TEMP), "config.json")
    assert Workspace.from_config(str(TEMP), auth=auth).name == "legacy"


@step("other ways to sign in: the cloud by its name, a token of one's own")
def _():
    named = ServicePrincipalAuthentication(
        os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"], cloud="Casemate"
    )
    assert Workspace.get("legacy", auth=named, subscription_id=SUBSCRIPTION, resource_group="v1")

    def token(audience):
        form = {"grant_type": "client_credentials", "client_id": os.environ["AZURE_CLIENT_ID"],
                "client_secret": os.environ["AZURE_CLIENT_SECRET"], "resource": os.environ["CASEMATE_URL"]}
        url = f"{os.environ['AZURE_AUTHORITY_HOST']}/{os.environ['AZURE_TENANT_ID']}/oauth2/token"
        context = ssl.create_default_context(cafile=PLATFORM_CA)
        with urllib.request.urlopen(url, urllib.parse.urlencode(form).encode(), context=context) as answer:
            return json.load(answer)["access_token"]

    assert Workspace.get("legacy", auth=TokenAuthentication(token), subscription_id=SUBSCRIPTION, resource_group="v1")


@step("create with a leaf domain label")
def _():
    global aks, name
    provisioning_config = AksCompute.provisioning_configuration()
    provisioning_config.enable_ssl(leaf_domain_label="contoso")
    aks = ComputeTarget.create(ws, "myaks", provisioning_config)
    aks.wait_for_completion(show_output=False)
    assert aks.provisioning_state == "Succeeded" and aks.ssl_configuration.status == "Auto"
    assert aks.ssl_configuration.leaf_domain_label == "contoso" and not aks.is_attached
    name = aks.ssl_configuration.cname
    assert name.endswith(SUFFIX) and len(name) == len("contoso") + 6 + len(SUFFIX), name
    facts = proven("myaks", name)
    assert facts["names"] == [name] and served(name)[2] in ("TLSv1.3", "TLSv1.2")
    assert [one.name for one in ComputeTarget.list(ws)] == ["myaks"]
    aks.get_credentials()
    return name


@step("forced renewal by the SDK: the name stays, the certificate changes, no request fails")
def _():
    before, serial, _ = served(name)
    with Callers(name) as callers:
        time.sleep(1)
        ssl_configuration = SslConfiguration(leaf_domain_label="contoso", overwrite_existing_domain=True, renew=True)
        begun = time.monotonic()
        aks.update(AksUpdateConfiguration(ssl_configuration))
        sent = time.monotonic() - begun
        took = sent + until_changed(name, before)
        aks.wait_for_completion(show_output=False)
        time.sleep(1)
    assert aks.ssl_configuration.cname == name and served(name)[1] != serial
    proven("myaks", name)
    assert not callers.failed and callers.count > 20, (callers.count, callers.failed[:3])
    return f"{took:.2f} s to the new fingerprint ({sent:.2f} s of them in the client), {callers.count} requests, 0 failed"


@step("forced renewal by the command line, as the article has it")
def _():
    before = fingerprint(name)
    with Callers(name) as callers:
        begun = time.monotonic()
        line = 'ml computetarget update aks -g v1 -w legacy -n myaks --ssl-leaf-domain-label contoso --ssl-overwrite-domain True --ssl-renew'
        process = subprocess.Popen([CASEMATE, *line.split()], stdout=subprocess.PIPE)
        until_changed(name, before)
        took = time.monotonic() - begun
        said, _ = process.communicate()
    assert process.returncode == 0 and json.loads(said)["properties"]["properties"]["sslConfiguration"]["cname"] == name
    assert not callers.failed, callers.failed[:3]
    return f"{took:.2f} s to the new fingerprint, {callers.count} requests, 0 failed"


@step("the label with its six characters is the label; without renew nothing changes")
def _():
    before = fingerprint(name)
    change(aks, SslConfiguration(leaf_domain_label=name.split(".")[0], overwrite_existing_domain=True))
    assert aks.ssl_configuration.cname == name and fingerprint(name) == before
    change(aks, SslConfiguration(leaf_domain_label="contoso"))
    assert aks.ssl_configuration.cname == name and fingerprint(name) == before


@step("an update that says nothing of TLS keeps it")
def _():
    before = fingerprint(name)
    aks.update(AksUpdateConfiguration(load_balancer_type="PublicIp"))
    aks.wait_for_completion(show_output=False)
    assert aks.ssl_configuration.cname == name and fingerprint(name) == before


@step("disable, then enable again: the name is the same")
def _():
    change(aks, SslConfiguration(status="Disabled"))
    assert aks.ssl_configuration.status == "Disabled" and not is_served(name)
    refused("leaf domain label", lambda: change(aks, SslConfiguration(leaf_domain_label="contoso", renew=True)))
    change(aks, SslConfiguration(leaf_domain_label="contoso"))
    assert aks.ssl_configuration.cname == name and is_served(name)
    casemate("ml", "computetarget", "update", "aks", "-g", "v1", "-w", "legacy", "-n", "myaks", "--ssl-disable")
    assert not is_served(name)
    change(aks, SslConfiguration(leaf_domain_label="contoso"))
    proven("myaks", name)


@step("create with a certificate of one's own")
def _():
    global own, company
    company = authority("company")
    cert, key = certificate("cert", "www.contoso.com", "company")
    provisioning_config = AksCompute.provisioning_configuration(agent_count=1, cluster_purpose="DevTest")
    provisioning_config.enable_ssl(ssl_cert_pem_file=str(cert), ssl_key_pem_file=str(key), ssl_cname="www.contoso.com")
    own = ComputeTarget.create(ws, "own", provisioning_config)
    own.wait_for_completion(show_output=False)
    assert (own.ssl_configuration.status, own.ssl_configuration.cname) == ("Enabled", "www.contoso.com")
    assert own.ssl_configuration.cert is None and own.ssl_configuration.key is None
    proven("own", "www.contoso.com", company)
    assert not is_served("www.contoso.com"), "the platform's authority has nothing to do with it"


@step("renew it by the SDK and by the command line")
def _():
    cert, key = certificate("renewed", "myaks", "company")
    change(own, SslConfiguration(cname="myaks", cert=cert.read_text(), key=key.read_text()))
    before = proven("own", "myaks", company)["sha256"]
    assert not is_served("www.contoso.com", company)
    certificate("again", "myaks", "company")
    begun = time.monotonic()
    line = 'ml computetarget update aks -g v1 -w legacy -n own --ssl-cname myaks --ssl-cert-file again.pem --ssl-key-file again.key'
    process = subprocess.Popen([CASEMATE, *line.split()], cwd=TEMP, stdout=subprocess.DEVNULL)
    until_changed("myaks", before, company)
    took = time.monotonic() - begun
    assert process.wait() == 0 and proven("own", "myaks", company)["sha256"] != before
    return f"{took:.2f} s to the new fingerprint"


@step("a certificate that can't be used changes nothing")
def _():
    before = fingerprint("myaks", company)
    cert, key = certificate("good", "myaks", "company")
    other, other_key = certificate("other", "www.fabrikam.com", "company")
    text = lambda file: file.read_text()  # noqa: E731
    openssl("pkcs8", "-topk8", "-in", "good.key", "-out", "locked.key", "-passout", "pass:secret")
    give = lambda cert, key, cname="myaks": lambda: change(own, SslConfiguration(cname=cname, cert=cert, key=key))  # noqa: E731
    for said, work in [
        ("CertificateKeyMismatch", give(text(cert), text(other_key))),
        ("CertificateNameMismatch", give(text(other), text(other_key))),
        ("EncryptedPrivateKey", give(text(cert), text(TEMP / "locked.key"))),
        ("InvalidCertificate", give("garbage", text(key))),
        ("is a name of the platform", give(text(cert), text(key), "localhost")),
        ("renew is for certificates of the platform", lambda: put("own", {"status": "Enabled", "cname": "myaks", "renew": True})),
        ("missing: key", lambda: put("own", {"status": "Enabled", "cname": "myaks", "cert": text(cert)})),
        ("are both given", lambda: put("own", {"leafDomainLabel": "x", "cname": "myaks", "cert": text(cert), "key": text(key)})),
        ("can't be part of a DNS name", lambda: change(own, SslConfiguration(leaf_domain_label="not_a_label"))),
        ("leaf domain label set", lambda: change(own, SslConfiguration(leaf_domain_label="x", renew=True))),
    ]:
        refused(said, work)
        assert fingerprint("myaks", company) == before, said
    said = casemate("ml", "computetarget", "update", "aks", "-g", "v1", "-w", "legacy", "-n", "own", "--ssl-renew", fails=True)
    assert "one that you gave" in said and "Traceback" not in said, said
    for part in ("PRIVATE KEY", text(key).splitlines()[1]):
        assert part not in said and part not in json.dumps(shown("own"))


@step("a self-signed certificate is accepted with a warning")
def _():
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "self.key", "-out",
            "self.pem", "-subj", "/CN=dev.contoso.com", "-days", "30", "-addext", "subjectAltName=DNS:dev.contoso.com")
    cert, key = (TEMP / "self.pem").read_text(), (TEMP / "self.key").read_text()
    change(own, SslConfiguration(cname="dev.contoso.com", cert=cert, key=key))
    assert any("self-signed" in warning for warning in shown("own")["casemate"]["warnings"])
    proven("own", "dev.contoso.com", TEMP / "self.pem")


@step("attach, and a label that is in use")
def _():
    attach_config = AksCompute.attach_configuration(resource_group="k8s", cluster_name="cluster")
    attach_config.enable_ssl(leaf_domain_label="contoso")
    refused("LeafDomainLabelInUse", lambda: ComputeTarget.attach(ws, "attached", attach_config))
    attach_config.enable_ssl(leaf_domain_label="contoso", overwrite_existing_domain=True)
    attached = ComputeTarget.attach(ws, "attached", attach_config)
    attached.wait_for_completion(show_output=False)
    assert attached.is_attached and attached.cluster_resource_id.endswith("/managedClusters/cluster")
    assert attached.ssl_configuration.cname == name
    proven("attached", name)
    aks.refresh_state()
    assert aks.ssl_configuration.status == "Disabled"
    assert any(name in warning for warning in shown("myaks")["casemate"]["warnings"])
    change(aks, SslConfiguration(leaf_domain_label="fabrikam"))
    proven("myaks", aks.ssl_configuration.cname)
    refused("Detach it", attached.delete)
    attached.detach()
    attached.wait_for_completion(show_output=False, is_delete_operation=True)
    assert not is_served(name)


@step("delete")
def _():
    gone = aks.ssl_configuration.cname
    aks.delete()
    aks.wait_for_completion(show_output=False, is_delete_operation=True)
    refused("ComputeTargetNotFound", lambda: ComputeTarget(ws, "myaks"))
    assert not is_served(gone)
    assert json.loads(casemate("ml", "computetarget", "list", "-g", "v1", "-w", "legacy", "--query", "[].name")) == ["own"]
    casemate("ml", "computetarget", "delete", "-g", "v1", "-w", "legacy", "-n", "own")
    line = "ml computetarget create aks -g v1 -w legacy -n plain --agent-count 1 --cluster-purpose DevTest"
    assert json.loads(casemate(*line.split()))["properties"]["provisioningState"] == "Succeeded"
    casemate("ml", "computetarget", "delete", "-g", "v1", "-w", "legacy", "-n", "plain")


print(f"{passed} steps passed")
