"""Attacks by other protocols and by the system calls beneath them."""

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct

LIBC = ctypes.CDLL(None, use_errno=True)


def _outcome(outcome, detail=""):
    return {"outcome": outcome, "detail": str(detail)}


def udp(address, port, payload="leak", wait=2):
    """Sends a datagram and waits for an answer."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(wait)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.connect((address, port))
            client.send(payload.encode("latin-1"))
            return _outcome("open", client.recv(4096))
    except TimeoutError:
        return _outcome("silent")
    except OSError as error:
        return _outcome("refused", repr(error))


def make(family, kind, protocol=0):
    """Makes a socket, by numbers."""
    try:
        socket.socket(family, kind, protocol).close()
        return _outcome("open")
    except OSError as error:
        return _outcome("refused", errno.errorcode.get(error.errno, error.errno))


def fast_open(address, port, payload="data in the first packet"):
    """Data in a SYN."""
    try:
        with socket.socket() as client:
            client.settimeout(5)
            client.sendto(payload.encode(), 0x20000000, (address, port))
            return _outcome("open", client.recv(64)) if client.recv(64) else _outcome("refused", "closed")
    except TimeoutError:
        return _outcome("silent")
    except OSError as error:
        return _outcome("refused", repr(error))


def syscall(number, arguments=()):
    """One system call by its number."""
    result = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(each) for each in arguments])
    if result < 0:
        return _outcome("refused", errno.errorcode.get(ctypes.get_errno(), ctypes.get_errno()))
    return _outcome("open", result)


def io_uring():
    """A ring for system calls that no filter sees one by one."""
    entries = ctypes.create_string_buffer(120)
    result = LIBC.syscall(ctypes.c_long(425), ctypes.c_long(1), entries)
    return _outcome("open", result) if result >= 0 else _outcome("refused", errno.errorcode.get(ctypes.get_errno()))


def gate(code):
    """Runs machine code (hex) in a process of its own: other ways into the kernel than the usual one."""
    child = os.fork()
    if child == 0:
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(bytes.fromhex(code))
        function = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        os._exit(0 if function() >= 0 else 1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return _outcome("refused", f"signal {os.WTERMSIG(status)}")
    return _outcome("open" if os.WEXITSTATUS(status) == 0 else "refused", status)


def bind(port, kind="tcp", address="0.0.0.0"):
    """Takes a port that the platform listens on, and waits for what should be its."""
    which = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    try:
        with socket.socket(socket.AF_INET, which) as server:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                with contextlib.suppress(OSError):
                    server.setsockopt(socket.SOL_SOCKET, option, 1)
            server.bind((address, port))
            return _outcome("open")
    except OSError as error:
        return _outcome("refused", errno.errorcode.get(error.errno, error.errno))


def transparent():
    """Asks for the right to take any address."""
    try:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_IP, 19, 1)
            return _outcome("open")
    except OSError as error:
        return _outcome("refused", errno.errorcode.get(error.errno, error.errno))


def change_routes():
    """Adds a route to a documentation prefix by netlink."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        to = struct.pack("=HH4s", 8, 1, socket.inet_aton("203.0.113.0"))
        route = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 3, 253, 1, 0) + to + struct.pack("=HHI", 8, 4, 1)
        kernel.send(struct.pack("=IHHII", 16 + len(route), 24, 0x405, 1, 0) + route)
        code = struct.unpack("=i", kernel.recv(4096)[16:20])[0]
        return _outcome("open" if code == 0 else "refused", errno.errorcode.get(-code, code))


def interfaces():
    """What the network consists of."""
    return _outcome("seen", ",".join(sorted(name for _, name in socket.if_nameindex())))
