"""What must not be reached on the platform's own machine: a TCP port on every address, a unix socket by its path and
one by an abstract name, each with a second one beside it that hands out a descriptor, and a file. Writes a line for
each caller.

usage: witness.py DIRECTORY

`witness.sock`, `giver.sock`, `treasure` and `callers` lie in DIRECTORY; the abstract names are `casemate-witness` and
`casemate-giver`. The first line on stdout is the port.
"""

import array
import os
import socket
import sys
import threading


def greet(client, _):
    client.settimeout(0.2)
    client.sendall(b"hello}")
    # What the caller sent is read, so that the greeting is not lost with it.
    client.recv(4096)
    client.close()


def give(client, treasure):
    """Hands out a descriptor of the file, as a careless or bribed program would."""
    rights = array.array("i", [treasure])
    client.sendmsg([b"here"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    client.close()


def serve(server, what, log, answer, treasure):
    while True:
        client, _ = server.accept()
        log.write(what + "\n")
        try:
            answer(client, treasure)
        except OSError:
            pass


def listener(address):
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    if isinstance(address, str) and not address.startswith("\0"):
        os.chmod(address, 0o777)
    return server


def main(directory):
    log = open(os.path.join(directory, "callers"), "a", buffering=1)
    path = os.path.join(directory, "treasure")
    with open(path, "w") as file:
        file.write("treasure")
    os.chmod(path, 0o666)
    treasure = os.open(path, os.O_RDWR)
    tcp = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    for what, server, answer in (
        ("path", listener(os.path.join(directory, "witness.sock")), greet),
        ("abstract", listener("\0casemate-witness"), greet),
        ("path of the giver", listener(os.path.join(directory, "giver.sock")), give),
        ("abstract giver", listener("\0casemate-giver"), give),
        ("tcp", tcp, greet),
    ):
        server.listen(64)
        threading.Thread(target=serve, args=(server, what, log, answer, treasure), daemon=True).start()
    print(tcp.getsockname()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
