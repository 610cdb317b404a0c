"""What must not be reached on the platform's own machine: a TCP port on every address, a unix socket by its path and
one by an abstract name. Writes a line for each caller.

usage: witness.py DIRECTORY

`witness.sock` and `callers` lie in DIRECTORY; the abstract name is `casemate-witness`. The first line on stdout is the
port.
"""

import os
import socket
import sys
import threading


def serve(server, what, log):
    while True:
        client, _ = server.accept()
        log.write(what + "\n")
        client.close()


def main(directory):
    log = open(os.path.join(directory, "callers"), "a", buffering=1)
    path, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    path.bind(os.path.join(directory, "witness.sock"))
    os.chmod(os.path.join(directory, "witness.sock"), 0o777)
    abstract.bind("\0casemate-witness")
    tcp = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    for what, server in (("path", path), ("abstract", abstract), ("tcp", tcp)):
        server.listen(64)
        threading.Thread(target=serve, args=(server, what, log), daemon=True).start()
    print(tcp.getsockname()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
