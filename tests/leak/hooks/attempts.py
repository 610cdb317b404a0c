"""What a package tries when it is built, and again whenever Python starts with it: to reach out, and to look around."""

import socket

import files


def _call(host, port):
    with socket.create_connection((host, port), 5) as peer:
        peer.sendall(b"GET /simple/spy/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host.encode())
        peer.settimeout(5)
        return bool(peer.recv(9))


def _found(said):
    return said["outcome"] == "open"


def attempts(places):
    """Name and outcome of each; `places` are those of the test's run."""
    directory, port = places["directory"], places["witness"]
    tries = {
        "the index": lambda: _call(places["index"], 80),
        "an approved name": lambda: _call("approved.example.net", 80),
        "another name": lambda: _call("other.example.net", 80),
        "a raw address": lambda: _call("93.184.216.11", 80),
        "a link-local address": lambda: _call("169.254.1.1", 80),
        "the machine": lambda: _call("192.168.77.2", port),
        "the machine by loopback": lambda: _call("127.0.0.1", port),
        "a socket's path": lambda: _found(files.unix(directory + "/witness.sock")),
        "an abstract socket": lambda: _found(files.unix("@casemate-witness")),
        "a descriptor": lambda: _found(files.descriptor("@casemate-giver")),
        "a planted link": lambda: _found(files.planted(directory + "/treasure")),
        "climbing": lambda: _found(files.climb(directory + "/treasure")),
        "a process of the machine": lambda: _found(files.sees("leak/witness.py")),
    }
    seen = {}
    for name, attempt in tries.items():
        try:
            seen[name] = "did" if attempt() else "refused"
        except Exception as error:  # whatever stops it stops it
            seen[name] = f"refused: {type(error).__name__}"
    return seen
