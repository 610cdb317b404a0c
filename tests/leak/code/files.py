"""Attacks on what lies around: files, processes, other sandboxes, the kernel's switches."""

import contextlib
import errno
import os
import socket
import subprocess


def _outcome(outcome, detail=""):
    return {"outcome": outcome, "detail": str(detail)}


def read(path):
    try:
        with open(path, "rb") as file:
            return _outcome("open", file.read(512).decode("latin-1"))
    except OSError as error:
        return _outcome("refused", errno.errorcode.get(error.errno, error.errno))


def write(path, content="1"):
    try:
        with open(path, "w") as file:
            file.write(content)
        return _outcome("open")
    except OSError as error:
        return _outcome("refused", errno.errorcode.get(error.errno, error.errno))


def openable(path):
    """Opens a file to write, and leaves it as it is."""
    try:
        os.close(os.open(path, os.O_WRONLY))
        return _outcome("open")
    except OSError as error:
        return _outcome("refused", errno.errorcode.get(error.errno, error.errno))


def listing(path):
    try:
        return _outcome("open", ",".join(sorted(os.listdir(path))))
    except OSError as error:
        return _outcome("refused", errno.errorcode.get(error.errno, error.errno))


def shell(line, wait=10):
    """Runs a shell line; `open` when it ends with 0."""
    ended = subprocess.run(["/bin/sh", "-c", line], capture_output=True, timeout=wait, text=True)
    return _outcome("open" if ended.returncode == 0 else "refused", (ended.stdout + ended.stderr).strip()[-2000:])


def unix(path):
    """Connects to a unix socket; a leading @ means an abstract one."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + path[1:] if path.startswith("@") else path)
            return _outcome("open")
    except OSError as error:
        return _outcome("refused", errno.errorcode.get(error.errno, error.errno))


def processes():
    """How many there are to be seen."""
    return _outcome("seen", sum(each.isdigit() for each in os.listdir("/proc")))


def sees(word):
    """Whether a process with this word in its command line is to be seen."""
    for each in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{each}/cmdline", "rb") as file:
            if word.encode() in file.read():
                return _outcome("open", each)
    return _outcome("refused", "no such process")


def serve(port):
    """Listens on every address until the deployment ends, and greets whoever comes."""
    if os.fork() == 0:
        os.setsid()
        server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind("\0casemate-neighbour")
        abstract.listen()
        while True:
            client, _ = server.accept()
            with contextlib.suppress(OSError):
                client.sendall(b"hello}")
            client.close()
    return _outcome("open")


def daemon(word="casemate-left-behind", seconds=300):
    """Leaves a process behind that belongs to nobody."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/sleep", [word, str(seconds)])
        os._exit(0)
    os.waitpid(child, 0)
    return _outcome("open")
