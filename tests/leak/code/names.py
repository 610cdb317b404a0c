"""Attacks by DNS: questions that carry data out, answers that lead somewhere else."""

import os
import random
import socket
import struct

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "NULL": 10, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "SVCB": 64, "HTTPS": 65, "IXFR": 251, "AXFR": 252, "ANY": 255}


def _question(name, kind, questions=1, flags=0x0100):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".") if label) + b"\0"
    head = struct.pack("!HHHHHH", random.randrange(65536), flags, questions, 0, 0, 0)
    return head + (labels + struct.pack("!HH", TYPES[kind], 1)) * questions


def _addresses(reply):
    """The addresses in the answer section."""
    _, flags, questions, answers, _, _ = struct.unpack("!HHHHHH", reply[:12])
    at, found = 12, []
    for _ in range(questions):
        while reply[at]:
            at += 1 + reply[at]
        at += 5
    for _ in range(answers):
        while reply[at] and reply[at] < 192:
            at += 1 + reply[at]
        at += 2 if reply[at] >= 192 else 1
        kind, _, _, length = struct.unpack("!HHIH", reply[at : at + 10])
        at += 10
        if kind == 1:
            found.append(socket.inet_ntoa(reply[at : at + 4]))
        elif kind == 28:
            found.append(socket.inet_ntop(socket.AF_INET6, reply[at : at + 16]))
        else:
            found.append(f"type {kind}")
        at += length
    return flags & 15, found


def ask(name, kind="A", server=None, questions=1, flags=0x0100, wait=3, raw=None):
    """One question; the code of the answer, what it holds and from whom it came."""
    server = server or os.environ.get("CASEMATE_LEAK_RESOLVER", "127.0.0.1")
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(wait)
        try:
            client.sendto(raw.encode("latin-1") if raw is not None else _question(name, kind, questions, flags), (server, 53))
            reply, source = client.recvfrom(4096)
        except TimeoutError:
            return {"outcome": "silent", "detail": []}
        except OSError as error:
            return {"outcome": "refused", "detail": repr(error)}
    code, found = _addresses(reply)
    return {"outcome": "answered", "code": code, "detail": found, "from": source[0]}


def resolve(name):
    """As programs do it."""
    try:
        return {"outcome": "answered", "detail": sorted({each[4][0] for each in socket.getaddrinfo(name, 443)})}
    except socket.gaierror as error:
        return {"outcome": "refused", "detail": repr(error)}


def flood(pattern, count):
    """Many names, as fast as they go; how many got an address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        given = 0
        for each in range(count):
            client.sendto(_question(pattern.format(each), "A"), ("127.0.0.1", 53))
            if each % 8 == 7:
                try:
                    for _ in range(8):
                        given += len(_addresses(client.recv(4096))[1])
                except TimeoutError:
                    pass
        return {"outcome": "counted", "detail": given}
