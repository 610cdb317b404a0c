"""Attacks on what lies around: files, processes, other sandboxes, the kernel's switches."""

import array
import contextlib
import errno
import os
import socket
import subprocess
import tempfile
import time


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


def _received(client):
    """The descriptor that comes over a unix socket, or nothing."""
    room = socket.CMSG_SPACE(array.array("i").itemsize)
    _, control, _, _ = client.recvmsg(64, room)
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return array.array("i", data[: array.array("i").itemsize])[0]
    return None


def descriptor(path):
    """Takes a descriptor that a unix socket hands out, and reads what it leads to; a leading @ means an abstract name."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect("\0" + path[1:] if path.startswith("@") else path)
            got = _received(client)
            if got is None:
                return _outcome("refused", "nothing was handed out")
            try:
                return _outcome("open", os.pread(got, 64, 0).decode("latin-1"))
            finally:
                os.close(got)
    except OSError as error:
        return _outcome("refused", errno.errorcode.get(error.errno, error.errno))


def give(name, content="own"):
    """Hands a descriptor of a file of its own to whoever asks at an abstract name, until the deployment ends."""
    if os.fork() == 0:
        os.setsid()
        file = tempfile.TemporaryFile()
        file.write(content.encode())
        file.flush()
        server = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            server.bind("\0" + name)
            server.listen()
            while True:
                client, _ = server.accept()
                with contextlib.suppress(OSError):
                    client.sendmsg([b"here"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))])
                client.close()
        os._exit(0)
    for _ in range(50):
        said = descriptor("@" + name)
        if said["outcome"] == "open":
            break
        time.sleep(0.1)
    return said


def unix_descriptors():
    """Which of the standard streams a descriptor could be passed over."""
    found = [str(each) for each in range(3) if os.path.exists(f"/proc/self/fd/{each}") and _is_unix(each)]
    return _outcome("open" if found else "refused", ",".join(found))


def _is_unix(descriptor):
    try:
        with socket.socket(fileno=os.dup(descriptor)) as stream:
            return stream.family == socket.AF_UNIX
    except OSError:
        return False


def _writable_places():
    places = ["/tmp", "/dev/shm", "/run", os.environ.get("HOME", "/tmp"), os.getcwd()]
    return [place for place in dict.fromkeys(places) if os.access(place, os.W_OK)]


def planted(path):
    """Plants a symbolic link to a path wherever it may, and reads through each."""
    tried = []
    for place in _writable_places():
        link = os.path.join(tempfile.mkdtemp(dir=place), "link")
        os.symlink(path, link)
        said = read(link)
        os.unlink(link)
        os.rmdir(os.path.dirname(link))
        if said["outcome"] == "open":
            return said
        tried.append(f"{place}: {said['detail']}")
    return _outcome("refused", "; ".join(tried))


def planted_write(path, content="overwritten"):
    """The same, writing."""
    place = tempfile.mkdtemp()
    link = os.path.join(place, "link")
    os.symlink(path, link)
    said = openable(link)
    if said["outcome"] == "open" and content:
        said = write(link, content)
    os.unlink(link)
    os.rmdir(place)
    return said


def hard_link(path):
    """Makes a second name of a file where it may write."""
    place = tempfile.mkdtemp()
    try:
        os.link(path, os.path.join(place, "link"))
        return _outcome("open")
    except OSError as error:
        # Another file system is no wall: whoever is told so has found the file.
        return _outcome("open" if error.errno in (errno.EXDEV, errno.EPERM) else "refused", errno.errorcode.get(error.errno))
    finally:
        for name in os.listdir(place):
            os.unlink(os.path.join(place, name))
        os.rmdir(place)


def climb(path):
    """Reads a path by climbing out of every directory that is open or known."""
    up = "../" * 24 + path.lstrip("/")
    starts = [f"/proc/self/{name}" for name in ("root", "cwd")] + ["/dev/shm", "/tmp", "/proc/1/cwd", "/proc/1/root"]
    tried = []
    for start in starts:
        said = read(f"{start}/{up}")
        if said["outcome"] == "open":
            return said
        tried.append(f"{start}: {said['detail']}")
    with contextlib.suppress(OSError):
        directory = os.open("/tmp", os.O_PATH | os.O_DIRECTORY)
        try:
            os.close(os.open(up, os.O_RDONLY, dir_fd=directory))
            return _outcome("open", "by a descriptor")
        except OSError as error:
            tried.append(f"descriptor: {errno.errorcode.get(error.errno)}")
        finally:
            os.close(directory)
    return _outcome("refused", "; ".join(tried))


def swap(path, seconds=2):
    """Changes a link to and fro between a harmless file and a path while it is read, as one who races a check does."""
    place = tempfile.mkdtemp()
    harmless, link, spare = (os.path.join(place, name) for name in ("harmless", "link", "spare"))
    write(harmless, "harmless")
    child = os.fork()
    if child == 0:
        while True:
            for to in (harmless, path):
                with contextlib.suppress(OSError):
                    os.symlink(to, spare)
                    os.rename(spare, link)
    end, seen = time.monotonic() + seconds, set()
    while time.monotonic() < end:
        said = read(link)
        seen.add(said["detail"])
        if said["outcome"] == "open" and said["detail"] != "harmless":
            break
    os.kill(child, 9)
    os.waitpid(child, 0)
    for name in os.listdir(place):
        os.unlink(os.path.join(place, name))
    os.rmdir(place)
    return said if said["outcome"] == "open" and said["detail"] != "harmless" else _outcome("refused", ",".join(sorted(seen)))


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
