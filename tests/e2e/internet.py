"""A small internet for tests, to be run inside a network namespace of its own.

It answers on every address that is routed to it: DNS (53), HTTP (80), HTTPS (443), and an echo on some other ports. Every
packet that arrives on its link is written to `arrivals.jsonl`, whatever it is: what a sandbox lets out shows there.

usage: internet.py LINK DIRECTORY

DIRECTORY holds `zone.json`, read anew for each query:
  {"name.": {"a": ["93.184.216.10"], "aaaa": [], "cname": "other.", "hang": false, "flip": [["a1"], ["a2"]]}}
and `server.pem`, the certificate and key of the HTTPS server. What lies in `packages` there is served as a package index
below `/simple/`. A line `ready` on stdout says that everything listens.
"""

import hashlib
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time

ECHO_PORTS = (22, 853, 5432, 6379, 8443, 8883)
IPV6_FREEBIND = 78  # not in Python's socket module; a local route is no address of an interface
FLIPS = {}


def arrivals(link, path):
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    wire.bind((link, 0))
    log = open(path, "a", buffering=1)
    log_ready.set()
    while True:
        packet, (_, kind, direction, _, _) = wire.recvfrom(65536)
        if direction == socket.PACKET_OUTGOING:
            continue
        entry = {"time": time.time(), "ethertype": kind, "length": len(packet)}
        if kind == 0x0800 and len(packet) >= 20:
            header = (packet[0] & 15) * 4
            entry.update(protocol=packet[9], source=socket.inet_ntoa(packet[12:16]), destination=socket.inet_ntoa(packet[16:20]))
            transport(entry, packet[header:])
        elif kind == 0x86DD and len(packet) >= 40:
            entry.update(
                protocol=packet[6],
                source=socket.inet_ntop(socket.AF_INET6, packet[8:24]),
                destination=socket.inet_ntop(socket.AF_INET6, packet[24:40]),
            )
            transport(entry, packet[40:])
        log.write(json.dumps(entry) + "\n")


def transport(entry, packet):
    if entry["protocol"] in (6, 17) and len(packet) >= 8:
        entry["source_port"], entry["port"] = struct.unpack("!HH", packet[:4])
    if entry["protocol"] == 17:
        entry["payload"] = packet[8:].decode("latin-1")
    elif entry["protocol"] == 6 and len(packet) >= 20:
        entry["flags"] = packet[13]
        entry["payload"] = packet[(packet[12] >> 4) * 4 :].decode("latin-1")[:2048]


def labels(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")) + b"\0"


def answer(query, directory):
    """The reply to one DNS query, or None to stay silent."""
    at, name = 12, []
    while query[at]:
        name.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    question, kind = query[12 : at + 5], struct.unpack("!H", query[at + 1 : at + 3])[0]
    name = ".".join(name).lower() + "."
    with open(os.path.join(directory, "zone.json")) as file:
        zone = json.load(file)
    records, known, hops = [], name in zone, 0
    while name in zone and hops < 8:
        entry = zone[name]
        if entry.get("hang"):
            return None
        if "flip" in entry:
            turn = FLIPS[name] = FLIPS.get(name, -1) + (kind == 1)
            entry = {"a": entry["flip"][min(turn, len(entry["flip"]) - 1)]} if kind == 1 else {}
        if "cname" in entry:
            records.append((name, 5, labels(entry["cname"])))
            name, hops = entry["cname"], hops + 1
            continue
        if kind == 1:
            records += [(name, 1, socket.inet_aton(each)) for each in entry.get("a", [])]
        if kind == 28:
            records += [(name, 28, socket.inet_pton(socket.AF_INET6, each)) for each in entry.get("aaaa", [])]
        break
    head = query[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, len(records), 0, 0)
    body = b"".join(labels(owner) + struct.pack("!HHIH", kind, 1, 0, len(data)) + data for owner, kind, data in records)
    return head + question + body


def serve_dns(server, directory):
    while True:
        query, client = server.recvfrom(4096)
        try:
            reply = answer(query, directory)
        except (IndexError, struct.error, ValueError, OSError):
            continue
        if reply:
            server.sendto(reply, client)


def index_page(path, directory):
    """Type and body of a page or a file of the package index, or nothing."""
    packages = os.path.join(directory, "packages")
    held = sorted(os.listdir(packages))
    if path.startswith("/files/") and path[7:] in held:
        with open(os.path.join(packages, path[7:]), "rb") as file:
            return "application/octet-stream", file.read()
    name = path.removeprefix("/simple/").strip("/").lower().replace("-", "_")
    found = [file for file in held if path.startswith("/simple/") and file.lower().startswith(name + "-")]
    if not found:
        return None
    files = []
    for file in found:
        with open(os.path.join(packages, file), "rb") as content:
            files.append({"filename": file, "url": f"/files/{file}", "hashes": {"sha256": hashlib.sha256(content.read()).hexdigest()}})
    page = {"meta": {"api-version": "1.1"}, "name": name, "files": files}
    return "application/vnd.pypi.simple.v1+json", json.dumps(page).encode()


def serve_http(stream, server_name, directory):
    """Answers each request with what arrived, until the client closes."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = stream.recv(65536)
            if not more:
                return
            data += more
        head, data = data.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        while len(data) < length:
            more = stream.recv(65536)
            if not more:
                return
            data += more
        data = data[length:]
        if headers.get("upgrade", "").lower() == "websocket":
            stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            return echo(stream)
        if lines[0].split(" ")[1].startswith("/redirect"):
            stream.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example.net/\r\nContent-Length: 0\r\n\r\n")
            continue
        if lines[0].split(" ")[1].startswith("/slow"):
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3600\r\n\r\n")
            for _ in range(3600):
                stream.sendall(b".")
                time.sleep(0.1)
            continue
        path = lines[0].split(" ")[1]
        if path.startswith(("/simple/", "/files/")) and os.path.isdir(os.path.join(directory, "packages")):
            page = index_page(path, directory)
            status, kind, body = ("200 OK", *page) if page else ("404 Not Found", "text/plain", b"")
            head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            stream.sendall(head.encode() + (b"" if lines[0].startswith("HEAD ") else body))
            continue
        said = {"request": lines[0], "host": headers.get("host"), "server_name": server_name, "local": stream.getsockname()[0]}
        body = json.dumps(said).encode()
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def echo(stream):
    while True:
        data = stream.recv(65536)
        if not data:
            return
        stream.sendall(data)


def serve_tls(stream, context, directory):
    with context.wrap_socket(stream, server_side=True) as tls:
        serve_http(tls, getattr(tls, "asked_name", None), directory)


def remember_name(tls, name, _):
    tls.asked_name = name


def listen(port, handler, *more):
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)

    def one(stream):
        try:
            with stream:
                stream.settimeout(600)
                handler(stream, *more)
        except (OSError, ValueError, IndexError):
            pass

    def run():
        while True:
            stream, _ = server.accept()
            threading.Thread(target=one, args=(stream,), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()


log_ready = threading.Event()


def main(link, directory):
    threading.Thread(target=arrivals, args=(link, os.path.join(directory, "arrivals.jsonl")), daemon=True).start()
    log_ready.wait(10)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(directory, "server.pem"))
    context.set_alpn_protocols(["http/1.1"])
    context.sni_callback = remember_name
    listen(80, serve_http, None, directory)
    listen(443, serve_tls, context, directory)
    for port in ECHO_PORTS:
        listen(port, echo)
    for family, address in ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:4860:4860::8888")):
        server = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        server.bind((address, 53))
        threading.Thread(target=serve_dns, args=(server, directory), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
