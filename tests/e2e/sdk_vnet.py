"""Virtual networks, private endpoints and private DNS through the original's own management clients.

Run with the variables of `casemate env`. Everything happens in one group; each step prints its time.
"""

import json
import os
import ssl
import time
import urllib.request

from azure.ai.ml import MLClient
from azure.ai.ml._restclient.arm_ml_service import MachineLearningServicesMgmtClient
from azure.ai.ml._restclient.arm_ml_service.models import (
    PrivateEndpointConnection,
    PrivateEndpointConnectionProperties,
    PrivateLinkServiceConnectionState,
)
from azure.ai.ml.entities import Workspace
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.network import models as net
from azure.mgmt.privatedns import PrivateDnsManagementClient
from azure.mgmt.privatedns import models as dns

BEGAN = time.monotonic()
DONE = []
URL, SUBSCRIPTION, GROUP = os.environ["CASEMATE_URL"], os.environ["AZURE_SUBSCRIPTION_ID"], "vnet-group"
ZONE = "privatelink.api.azureml.ms"
BLOB_ZONE = "privatelink.blob.core.windows.net"


def step(name):
    DONE.append(name)
    print(f"{time.monotonic() - BEGAN:7.2f} s  {name}", flush=True)


def refused(call, kind, *words):
    try:
        call()
    except kind as error:
        for word in words:
            assert word in str(error), f"'{word}' is missing in: {error}"
        return
    raise AssertionError("should have been refused")


def client(kind, credential):
    return kind(credential, SUBSCRIPTION, base_url=URL, credential_scopes=[f"{URL}/.default"])


def names(items):
    return sorted(item.name for item in items)


def networks(network):
    space = net.AddressSpace(address_prefixes=["127.91.0.0/16"])
    first = net.Subnet(name="default", address_prefix="127.91.0.0/24")
    wanted = net.VirtualNetwork(location="local", tags={"a": "b"}, address_space=space, subnets=[first])
    made = network.virtual_networks.begin_create_or_update(GROUP, "net", wanted).result()
    assert made.provisioning_state == "Succeeded" and made.id.endswith("/virtualNetworks/net") and made.etag, made
    assert made.address_space.address_prefixes == ["127.91.0.0/16"] and made.tags == {"a": "b"}, made
    assert names(made.subnets) == ["default"] and made.subnets[0].id.endswith("/subnets/default"), made
    got = network.virtual_networks.get(GROUP, "net")
    assert got.resource_guid == made.resource_guid and got.enable_ddos_protection is False
    assert names(network.virtual_networks.list(GROUP)) == names(network.virtual_networks.list_all()) == ["net"]
    tagged = network.virtual_networks.update_tags(GROUP, "net", net.TagsObject(tags={"c": "d"}))
    assert tagged.tags == {"c": "d"} and names(tagged.subnets) == ["default"], tagged
    # What was fetched is sent back with one change.
    got = network.virtual_networks.get(GROUP, "net")
    got.tags = {"e": "f"}
    again = network.virtual_networks.begin_create_or_update(GROUP, "net", got).result()
    assert again.tags == {"e": "f"} and again.resource_guid == made.resource_guid
    step("virtual network: create, get, list, tag, send back")

    wanted = net.Subnet(address_prefix="127.91.1.0/24", private_endpoint_network_policies="Disabled")
    second = network.subnets.begin_create_or_update(GROUP, "net", "second", wanted).result()
    assert second.address_prefix == "127.91.1.0/24" and second.provisioning_state == "Succeeded", second
    assert second.private_endpoint_network_policies == "Disabled", second
    assert names(network.subnets.list(GROUP, "net")) == ["default", "second"]
    assert network.subnets.get(GROUP, "net", "second").id == second.id
    network.subnets.begin_delete(GROUP, "net", "second").result()
    refused(lambda: network.subnets.get(GROUP, "net", "second"), ResourceNotFoundError, "second")
    refused(lambda: network.virtual_networks.get(GROUP, "none"), ResourceNotFoundError, "none")
    overlapping = net.VirtualNetwork(location="local", address_space=space)
    refused(
        lambda: network.virtual_networks.begin_create_or_update(GROUP, "other", overlapping).result(),
        HttpResponseError,
        "overlaps",
    )
    step("subnet: create, get, list, delete; what is refused")


def zones(private):
    made = private.private_zones.begin_create_or_update(GROUP, ZONE, dns.PrivateZone(location="global")).result()
    assert made.provisioning_state == "Succeeded" and made.location == "global", made
    assert made.number_of_record_sets == 1 and made.number_of_virtual_network_links == 0, made
    assert made.max_number_of_record_sets > 0 and made.etag
    assert names(private.private_zones.list_by_resource_group(GROUP)) == [ZONE]
    assert names(private.private_zones.list()) == [ZONE]
    patched = private.private_zones.begin_update(GROUP, ZONE, dns.PrivateZone(tags={"a": "b"})).result()
    assert patched.tags == {"a": "b"}, patched
    refused(
        lambda: private.private_zones.begin_create_or_update(
            GROUP, ZONE, dns.PrivateZone(location="global"), etag="*", match_condition=MatchConditions.IfMissing
        ).result(),
        HttpResponseError,
    )
    step("zone: create, list, tag, create only if it is not there")

    vnet = dns.SubResource(id=f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Network/virtualNetworks/net")
    wanted = dns.VirtualNetworkLink(location="global", virtual_network=vnet, registration_enabled=False)
    link = private.virtual_network_links.begin_create_or_update(GROUP, ZONE, "link", wanted).result()
    assert link.virtual_network_link_state == "Completed" and link.provisioning_state == "Succeeded", link
    assert link.registration_enabled is False and link.virtual_network.id == vnet.id, link
    assert names(private.virtual_network_links.list(GROUP, ZONE)) == ["link"]
    assert private.virtual_network_links.get(GROUP, ZONE, "link").id == link.id
    tagged = private.virtual_network_links.begin_update(GROUP, ZONE, "link", dns.VirtualNetworkLink(tags={"a": "b"})).result()
    assert tagged.tags == {"a": "b"} and tagged.virtual_network.id == vnet.id, tagged
    assert private.private_zones.get(GROUP, ZONE).number_of_virtual_network_links == 1
    step("link: create, get, list, tag")


def records(private):
    def put(kind, name, **properties):
        made = private.record_sets.create_or_update(GROUP, ZONE, kind, name, dns.RecordSet(ttl=60, **properties))
        assert made.name == name and made.ttl == 60 and made.fqdn == f"{name}.{ZONE}.", made
        assert made.is_auto_registered is False and made.etag and made.type.endswith(f"/{kind}"), made
        got = private.record_sets.get(GROUP, ZONE, kind, name)
        assert got.as_dict()["properties"] == made.as_dict()["properties"], (got, made)
        return got

    a = put("A", "host", a_records=[dns.ARecord(ipv4_address="127.91.0.200")], metadata={"why": "test"})
    assert a.a_records[0].ipv4_address == "127.91.0.200" and a.metadata == {"why": "test"}, a
    six = put("AAAA", "host", aaaa_records=[dns.AaaaRecord(ipv6_address="fd00::1")])
    assert six.aaaa_records[0].ipv6_address == "fd00::1"
    assert put("CNAME", "alias", cname_record=dns.CnameRecord(cname="host.example.org")).cname_record.cname == "host.example.org"
    assert put("TXT", "text", txt_records=[dns.TxtRecord(value=["one", "two"])]).txt_records[0].value == ["one", "two"]
    mail = put("MX", "mail", mx_records=[dns.MxRecord(preference=10, exchange="mx.example.org")])
    assert (mail.mx_records[0].preference, mail.mx_records[0].exchange) == (10, "mx.example.org")
    service = put("SRV", "service", srv_records=[dns.SrvRecord(priority=1, weight=2, port=389, target="host.example.org")])
    assert service.srv_records[0].port == 389
    assert put("PTR", "9", ptr_records=[dns.PtrRecord(ptrdname="host.example.org")]).ptr_records[0].ptrdname == "host.example.org"
    a.a_records.append(dns.ARecord(ipv4_address="127.91.0.201"))
    changed = private.record_sets.update(GROUP, ZONE, "A", "host", a)
    assert [one.ipv4_address for one in changed.a_records] == ["127.91.0.200", "127.91.0.201"], changed
    assert names(private.record_sets.list_by_type(GROUP, ZONE, "A")) == ["host"]
    everything = list(private.record_sets.list(GROUP, ZONE))
    assert names(everything) == ["9", "@", "alias", "host", "host", "mail", "service", "text"], names(everything)
    assert [one.soa_record.minimum_ttl for one in everything if one.soa_record] == [10]
    assert names(private.record_sets.list(GROUP, ZONE, recordsetnamesuffix="ost")) == ["host", "host"]
    assert names(private.record_sets.list(GROUP, ZONE, top=3)) == names(everything)
    for kind, name in (("A", "host"), ("AAAA", "host"), ("CNAME", "alias"), ("TXT", "text"), ("MX", "mail"), ("SRV", "service"), ("PTR", "9")):
        private.record_sets.delete(GROUP, ZONE, kind, name)
        refused(lambda: private.record_sets.get(GROUP, ZONE, kind, name), ResourceNotFoundError)
    step("record sets of all kinds: put, get, update, list, delete")


def endpoint_of(network, name, target, group, manual=False):
    link = net.PrivateLinkServiceConnection(
        name=name, private_link_service_id=target, group_ids=[group], request_message="please"
    )
    links = {"manual_private_link_service_connections" if manual else "private_link_service_connections": [link]}
    subnet = network.subnets.get(GROUP, "net", "default")
    wanted = net.PrivateEndpoint(location="local", subnet=net.Subnet(id=subnet.id), **links)
    return network.private_endpoints.begin_create_or_update(GROUP, name, wanted).result()


def endpoints(network, private, ml_service, workspace):
    made = endpoint_of(network, "pe", workspace.id, "amlworkspace")
    assert made.provisioning_state == "Succeeded", made
    link = made.private_link_service_connections[0]
    assert link.private_link_service_connection_state.status == "Approved" and link.group_ids == ["amlworkspace"], link
    guid = ml_service.workspaces.get(GROUP, "vnet-ws").properties.workspace_id
    told = {config.fqdn: config.ip_addresses for config in made.custom_dns_configs}
    assert len(told) == 2 and all(guid in name for name in told), told
    address = made.custom_dns_configs[0].ip_addresses[0]
    interface = network.network_interfaces.get(GROUP, made.network_interfaces[0].id.rsplit("/", 1)[1])
    assert interface.ip_configurations[0].private_ip_address == address, interface
    assert interface.ip_configurations[0].private_link_connection_properties.group_id == "amlworkspace", interface
    assert interface.private_endpoint.id == made.id
    assert names(network.private_endpoints.list(GROUP)) == names(network.private_endpoints.list_by_subscription()) == ["pe"]
    got = network.private_endpoints.get(GROUP, "pe")
    again = network.private_endpoints.begin_create_or_update(GROUP, "pe", got).result()
    assert again.custom_dns_configs[0].ip_addresses == [address], "what was fetched is sent back, and changes nothing"
    users = network.subnets.get(GROUP, "net", "default").private_endpoints
    assert [one.id for one in users] == [made.id], users
    refused(lambda: network.virtual_networks.begin_delete(GROUP, "net").result(), HttpResponseError, "in use")
    step("private endpoint: create, get, list, send back; its interface and its subnet show it")

    zone = private.private_zones.get(GROUP, ZONE)
    config = net.PrivateDnsZoneConfig(name="ml", private_dns_zone_id=zone.id)
    wanted = net.PrivateDnsZoneGroup(name="default", private_dns_zone_configs=[config])
    group = network.private_dns_zone_groups.begin_create_or_update(GROUP, "pe", "default", wanted).result()
    assert group.provisioning_state == "Succeeded", group
    sets = group.private_dns_zone_configs[0].record_sets
    assert {one.record_set_name for one in sets} == {f"*.{guid}.inference.local", f"{guid}.workspace.local"}, sets
    assert all(one.ip_addresses == [address] and one.record_type == "A" for one in sets), sets
    assert names(network.private_dns_zone_groups.list("pe", GROUP)) == ["default"]
    assert network.private_dns_zone_groups.get(GROUP, "pe", "default").private_dns_zone_configs[0].name == "ml"
    held = {one.name: one.a_records[0].ipv4_address for one in private.record_sets.list_by_type(GROUP, ZONE, "A")}
    assert held == {one.record_set_name: address for one in sets}, held
    network.private_dns_zone_groups.begin_delete(GROUP, "pe", "default").result()
    refused(lambda: network.private_dns_zone_groups.get(GROUP, "pe", "default"), ResourceNotFoundError)
    network.private_dns_zone_groups.begin_create_or_update(GROUP, "pe", "default", wanted).result()
    step("group of zones: create, get, list, delete; the names are in the zone")
    return address


def decide(ml_service, connection, status):
    """What approving and rejecting are: the connection, sent back with another state."""
    state = PrivateLinkServiceConnectionState(status=status, description=f"it is {status}")
    wanted = PrivateEndpointConnection(
        properties=PrivateEndpointConnectionProperties(private_link_service_connection_state=state)
    )
    return ml_service.private_endpoint_connections.create_or_update(GROUP, "vnet-ws", connection, wanted)


def connections(network, private, ml_service, workspace):
    operations = ml_service.private_endpoint_connections
    [connection] = list(operations.list(GROUP, "vnet-ws"))
    endpoint = network.private_endpoints.get(GROUP, "pe")
    properties = connection.properties
    assert properties.private_endpoint.id == endpoint.id and properties.provisioning_state == "Succeeded", connection
    assert properties.private_endpoint.subnet_arm_id == endpoint.subnet.id, connection
    embedded = ml_service.workspaces.get(GROUP, "vnet-ws").properties.private_endpoint_connections
    assert [one.as_dict() for one in embedded] == [connection.as_dict()], embedded
    groups = {one.properties.group_id: one.properties for one in ml_service.private_link_resources.list(GROUP, "vnet-ws")}
    assert groups["amlworkspace"].required_zone_names == [ZONE], groups
    for status, records_are_there in (("Rejected", False), ("Approved", True)):
        decided = decide(ml_service, connection.name, status)
        assert decided.properties.private_link_service_connection_state.status == status, decided
        shown = network.private_endpoints.get(GROUP, "pe").private_link_service_connections[0]
        state = shown.private_link_service_connection_state
        assert (state.status, state.description) == (status, f"it is {status}"), state
        assert bool(list(private.record_sets.list_by_type(GROUP, ZONE, "A"))) == records_are_there, status
        assert operations.get(GROUP, "vnet-ws", connection.name).properties.private_link_service_connection_state.status == status
    operations.delete(GROUP, "vnet-ws", connection.name)
    shown = network.private_endpoints.get(GROUP, "pe").private_link_service_connections[0]
    assert shown.private_link_service_connection_state.status == "Disconnected", shown
    assert list(operations.list(GROUP, "vnet-ws")) == []
    assert not ml_service.workspaces.get(GROUP, "vnet-ws").properties.private_endpoint_connections
    # One that leaves the decision to the target's owner.
    manual = endpoint_of(network, "asked", workspace.id, "amlworkspace", manual=True)
    asked = manual.manual_private_link_service_connections[0]
    assert asked.private_link_service_connection_state.status == "Pending" and asked.request_message == "please", asked
    [connection] = list(operations.list(GROUP, "vnet-ws"))
    decide(ml_service, connection.name, "Approved")
    shown = network.private_endpoints.get(GROUP, "asked").manual_private_link_service_connections[0]
    assert shown.private_link_service_connection_state.status == "Approved", shown
    step("connection: list, get, reject, approve, delete; asked for by hand and approved")


def storage(network, private, workspace):
    """A private endpoint of the workspace's storage, with its name in the documented zone."""
    zone = private.private_zones.begin_create_or_update(GROUP, BLOB_ZONE, dns.PrivateZone(location="global")).result()
    made = endpoint_of(network, "pe-blob", workspace.storage_account, "blob")
    account = workspace.storage_account.rsplit("/", 1)[1].lower()
    assert made.custom_dns_configs[0].fqdn.startswith(f"{account}.blob.core."), made
    config = net.PrivateDnsZoneConfig(name="blob", private_dns_zone_id=zone.id)
    wanted = net.PrivateDnsZoneGroup(private_dns_zone_configs=[config])
    network.private_dns_zone_groups.begin_create_or_update(GROUP, "pe-blob", "default", wanted).result()
    assert names(private.record_sets.list_by_type(GROUP, BLOB_ZONE, "A")) == [account]
    step("private endpoint of a storage account, named in the documented zone")


def removal(network, private):
    refused(lambda: private.private_zones.begin_delete(GROUP, ZONE).result(), HttpResponseError, "nested resources")
    for name in names(network.private_endpoints.list(GROUP)):
        network.private_endpoints.begin_delete(GROUP, name).result()
        refused(lambda: network.private_endpoints.get(GROUP, name), ResourceNotFoundError)
    assert list(private.record_sets.list_by_type(GROUP, ZONE, "A")) == []
    private.virtual_network_links.begin_delete(GROUP, ZONE, "link").result()
    for zone in names(private.private_zones.list_by_resource_group(GROUP)):
        private.private_zones.begin_delete(GROUP, zone).result()
        refused(lambda: private.private_zones.get(GROUP, zone), ResourceNotFoundError)
    network.virtual_networks.begin_delete(GROUP, "net").result()
    assert list(network.virtual_networks.list(GROUP)) == []
    step("delete everything")


def main():
    credential = ClientSecretCredential(
        os.environ["AZURE_TENANT_ID"],
        os.environ["AZURE_CLIENT_ID"],
        os.environ["AZURE_CLIENT_SECRET"],
        authority=os.environ["AZURE_AUTHORITY_HOST"],
        disable_instance_discovery=True,
    )
    ml = MLClient(credential, SUBSCRIPTION, GROUP)
    network, private = client(NetworkManagementClient, credential), client(PrivateDnsManagementClient, credential)
    ml_service = client(MachineLearningServicesMgmtClient, credential)
    request = urllib.request.Request(
        f"{URL}/subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}?api-version=2021-04-01",
        json.dumps({"location": "local"}).encode(),
        method="PUT",
        headers={"Authorization": f"Bearer {credential.get_token(f'{URL}/.default').token}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, context=ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])).close()
    ml.workspaces.begin_create(Workspace(name="vnet-ws", location="local")).result()
    workspace = ml.workspaces.get("vnet-ws")
    step("workspace")
    networks(network)
    zones(private)
    records(private)
    endpoints(network, private, ml_service, workspace)
    connections(network, private, ml_service, workspace)
    storage(network, private, workspace)
    removal(network, private)
    print(f"{len(DONE)} steps passed")


if __name__ == "__main__":
    main()
