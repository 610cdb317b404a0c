"""Secrets of a vault with the unmodified azure-keyvault-secrets client, from outside.

Run with the variables of `casemate env`. Argument: the vault's address. Its name leads to the platform here, as a
company's DNS would have it.
"""

import os
import socket
import sys
import urllib.parse

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential, DefaultAzureCredential
from azure.keyvault.secrets import SecretClient

VAULT = sys.argv[1]
HOST = urllib.parse.urlparse(VAULT).hostname
FRONT_DOOR = urllib.parse.urlparse(os.environ["CASEMATE_URL"])
DONE = []

look_up = socket.getaddrinfo


def resolve(host, port, *args, **kwargs):
    if host == HOST:
        host = FRONT_DOOR.hostname
    return look_up(host, port, *args, **kwargs)


socket.getaddrinfo = resolve


def step(name):
    DONE.append(name)
    print(name, flush=True)


def refused(kind, code, act):
    try:
        act()
    except kind as error:
        assert code in str(error), f"{error}"
        return
    raise AssertionError(f"{code} was expected")


client = SecretClient(vault_url=VAULT, credential=DefaultAzureCredential())

first = client.set_secret("multiplier", "7", content_type="text/plain", tags={"team": "a"})
assert first.value == "7" and first.properties.version and first.properties.vault_url == VAULT.rstrip("/"), first
step("a secret is set")

second = client.set_secret("multiplier", "8")
assert client.get_secret("multiplier").value == "8"
assert client.get_secret("multiplier", first.properties.version).value == "7"
versions = {each.version for each in client.list_properties_of_secret_versions("multiplier")}
assert versions == {first.properties.version, second.properties.version}, versions
step("versions are kept")

for number in range(30):
    client.set_secret(f"many-{number}", str(number))
names = [each.name for each in client.list_properties_of_secrets()]
assert len(names) == len(set(names)) == 31 and "multiplier" in names, names
step("lists have all pages")

changed = client.update_secret_properties("multiplier", content_type="number", enabled=False)
assert changed.content_type == "number" and changed.enabled is False, changed
refused(HttpResponseError, "disabled", lambda: client.get_secret("multiplier"))
client.update_secret_properties("multiplier", enabled=True)
assert client.get_secret("multiplier").properties.content_type == "number"
step("what is said about a secret changes")

refused(ResourceNotFoundError, "SecretNotFound", lambda: client.get_secret("none"))
refused(HttpResponseError, "longest", lambda: client.set_secret("big", "x" * 30000))
gone = client.begin_delete_secret("multiplier").result()
assert gone.name == "multiplier" and gone.recovery_id is None, gone
refused(ResourceNotFoundError, "SecretNotFound", lambda: client.get_secret("multiplier"))
step("a deleted secret is gone")


class Fixed(DefaultAzureCredential):
    """A token for the management API where one for vaults is wanted."""

    def get_token(self, *scopes, **kwargs):
        return super().get_token(os.environ["CASEMATE_URL"] + "/.default")

    def get_token_info(self, *scopes, **kwargs):
        return super().get_token_info(os.environ["CASEMATE_URL"] + "/.default")


wrong = SecretClient(vault_url=VAULT, credential=Fixed())
refused(ClientAuthenticationError, "AKV10022", lambda: wrong.get_secret("many-1"))
step("a token for something else opens nothing")

if len(sys.argv) > 3:
    other = ClientSecretCredential(
        os.environ["AZURE_TENANT_ID"],
        sys.argv[2],
        sys.argv[3],
        authority=os.environ["AZURE_AUTHORITY_HOST"],
        disable_instance_discovery=True,
    )
    stranger = SecretClient(vault_url=VAULT, credential=other)
    refused(HttpResponseError, "az role assignment create", lambda: stranger.get_secret("many-1"))
    step("a stranger is refused")

print(f"{len(DONE)} steps passed")
