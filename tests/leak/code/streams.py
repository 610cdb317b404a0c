"""Attacks by TCP streams: names in TLS, requests in HTTP, raw bytes. Outcomes: `open` with what the other side said,
`refused` when the connection was refused, reset or closed without an answer, `silent` when nothing came."""

import contextlib
import json
import os
import select
import socket
import ssl
import struct
import time

WAIT = float(os.environ.get("CASEMATE_LEAK_WAIT", "5"))


def _outcome(outcome, detail=""):
    return {"outcome": outcome, "detail": str(detail)}


def _dial(address, port, timeout=WAIT):
    return socket.create_connection((address, port), timeout=timeout)


def _read(stream, limit=65536):
    data = b""
    with contextlib.suppress(TimeoutError):
        while len(data) < limit:
            more = stream.recv(65536)
            if not more:
                break
            data += more
            if b"\r\n\r\n" in data and b"Content-Length: 0" in data:
                break
            if data.endswith(b"}") or (data.startswith(b"HTTP/1.1 101") and data.endswith(b"\r\n\r\n")):
                break
    return data


def _answer(data):
    if not data:
        return _outcome("refused", "closed without an answer")
    text = data.decode("latin-1")
    head, _, body = text.partition("\r\n\r\n")
    status = head.split(" ")[1] if head.startswith("HTTP/") else ""
    return {"outcome": "open", "status": status, "detail": body or text}


def _guarded(attack):
    try:
        return attack()
    except TimeoutError:
        return _outcome("silent", "nothing came")
    except (ConnectionError, ssl.SSLError, socket.gaierror) as error:
        return _outcome("refused", repr(error))
    except OSError as error:
        return _outcome("refused", repr(error))


def raw(address, port, send="", wait=WAIT):
    """Connects, sends bytes, and reads."""

    def attack():
        with _dial(address, port, wait) as stream:
            if send:
                stream.sendall(send.encode("latin-1"))
            return _answer(_read(stream))

    return _guarded(attack)


def http(address, requests, port=80):
    """Sends each request in turn on one connection, reading an answer after each; gives the last."""

    def attack():
        last = b""
        with _dial(address, port) as stream:
            for request in requests:
                stream.sendall(request.encode("latin-1"))
                last = _read(stream)
        return _answer(last)

    return _guarded(attack)


def tls(address, name, host=None, port=443, alpn=None, path="/"):
    """A handshake with this server name (or none), and a request with this Host."""

    def attack():
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(alpn)
        with _dial(address, port) as plain, context.wrap_socket(plain, server_hostname=name) as stream:
            close = "" if path == "/" else "Connection: close\r\n"
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {host or name}\r\n{close}\r\n".encode())
            return _answer(_read(stream))

    return _guarded(attack)


def _hello(name):
    """The bytes of a ClientHello for a name, as one record."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def _with_extension(hello, kind, content):
    """The same hello with one more extension at its end."""
    body = bytearray(hello[9:])
    at = 34
    at += 1 + body[at]
    at += 2 + struct.unpack("!H", body[at : at + 2])[0]
    at += 1 + body[at]
    length = struct.unpack("!H", body[at : at + 2])[0]
    more = struct.pack("!HH", kind, len(content)) + content
    body[at : at + 2] = struct.pack("!H", length + len(more))
    body += more
    message = b"\x01" + len(body).to_bytes(3, "big") + bytes(body)
    return b"".join(
        b"\x16\x03\x01" + struct.pack("!H", len(part)) + part
        for part in (message[i : i + 16384] for i in range(0, len(message), 16384))
    )


def _server_names(*names):
    entries = b"".join(b"\0" + struct.pack("!H", len(name)) + name for name in names)
    return struct.pack("!H", len(entries)) + entries


def hello(address, name="approved.example.net", form="plain", port=443, seconds=3):
    """A ClientHello in an unusual form. `open` when any byte comes back from a server."""

    def attack():
        data = _hello(name)
        if form == "fragmented":
            message = data[5:]
            data = b"".join(b"\x16\x03\x01" + struct.pack("!H", 1) + message[i : i + 1] for i in range(len(message)))
        elif form == "ech":
            data = _with_extension(data, 0xFE0D, b"\0\0\1\0\1\7\0\x20" + b"k" * 32 + b"\0\x90" + b"p" * 144)
        elif form == "second-name-extension":
            data = _with_extension(data, 0, _server_names(b"other.example.net"))
        elif form == "post-quantum":
            data = _with_extension(data, 0xFAFA, b"q" * 1500)
        elif form == "huge":
            data = _with_extension(data, 0xFAFA, b"q" * 20000)
        elif form == "nul":
            data = data.replace(name.encode(), name.encode()[:-1] + b"\0")
        elif form == "percent":
            data = data.replace(name.encode(), name.encode()[:-1] + b"%")
        elif form == "upper":
            data = data.replace(name.encode(), name.upper().encode())
        with _dial(address, port, 4 * WAIT) as stream:
            if form == "drip":
                end = time.monotonic() + seconds
                for byte in data[:-1]:
                    stream.sendall(bytes([byte]))
                    time.sleep(seconds / len(data))
                    if select.select([stream], [], [], 0)[0] or time.monotonic() > end:
                        break
                return _answer(_read(stream))
            stream.sendall(data)
            return _answer(stream.recv(64))

    return _guarded(attack)


def half_open(address, count, then, port=443):
    """Opens many connections that say nothing, then makes one that is fine."""
    held = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                held.append(_dial(address, port, 2))
        return {**tls(address, then), "held": len(held)}
    finally:
        for each in held:
            each.close()


def stream_for(address, port=80, host="approved.example.net", seconds=20):
    """Reads a slow answer until it ends or is cut; says after how many seconds."""
    began = time.monotonic()

    def attack():
        with _dial(address, port) as stream:
            stream.sendall(f"GET /slow HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            stream.settimeout(seconds)
            received = 0
            while time.monotonic() - began < seconds:
                more = stream.recv(1024)
                if not more:
                    return _outcome("cut", received)
                received += len(more)
            return _outcome("open", received)

    result = _guarded(attack)
    if result["outcome"] == "refused":
        result["outcome"] = "cut"
    return {**result, "seconds": time.monotonic() - began}


def many(address, port, count, send=""):
    """Opens many connections at once and holds them: how many were open together."""
    held, open_now = [], 0
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                stream = _dial(address, port, 2)
                if send:
                    stream.sendall(send.encode())
                held.append(stream)
        time.sleep(1)
        for each in held:
            each.setblocking(False)
            try:
                each.recv(1)
                open_now += 1
            except BlockingIOError:
                open_now += 1
            except OSError:
                pass
        return {"outcome": "counted", "detail": open_now}
    finally:
        for each in held:
            each.close()


def identity(path="/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://storage.example/", headers=None):
    """Asks the instance metadata service."""
    lines = "".join(f"{key}: {value}\r\n" for key, value in (headers or {}).items())
    return http("169.254.169.254", [f"GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n{lines}\r\n"])


def sdk_token(resource):
    """As a scoring script would: the default credential of the identity package."""
    from azure.identity import DefaultAzureCredential

    token = DefaultAzureCredential().get_token(resource)
    payload = token.token.split(".")[1]
    import base64

    return {"outcome": "open", "detail": json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))}
