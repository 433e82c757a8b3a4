"""A compromised receiver: it tries to reach everything, and writes down what worked.

Run as a program of its own: ``python3 hostile_receiver.py CONFIGURATION.json RESULT.json``. It uses the standard
library only, for the sandbox shows nothing else. ``attempts`` of the result maps each attempt to None where it worked,
or to the error that stopped it. Nothing that it does outlives it or harms the host where nothing stops it.
"""

import ctypes
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_ATTACH, _DETACH = 16, 17
_NEW_USER_NAMESPACE = 0x10000000
_STOPPED = 0x40000000


def _system_call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _read_environment(process: int) -> None:
    if b"BAIT=" not in Path(f"/proc/{process}/environ").read_bytes():
        raise OSError("another process")


def _see_others(name: str, directory: str) -> None:
    if name not in os.listdir(directory):
        raise OSError("not seen")


def _mount(directory: str) -> None:
    os.makedirs(directory, exist_ok=True)
    _system_call("mount", b"none", directory.encode(), b"tmpfs", 0, None)
    _system_call("umount2", directory.encode(), 2)


def _trace(process: int) -> None:
    _system_call("ptrace", _ATTACH, process, None, None)
    os.waitpid(process, _STOPPED)
    _system_call("ptrace", _DETACH, process, None, None)


def _device(path: str) -> None:
    os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(254, 0))
    os.unlink(path)


def _connect(family: socket.AddressFamily, address: Any) -> None:
    with socket.socket(family) as connection:
        connection.settimeout(3)
        connection.connect(address)


def _open_to_write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def _write(path: str) -> None:
    Path(path).write_text("owned")


def _new_user_namespace() -> None:
    # In a child: the rest of the attempts are made as who we are.
    child = os.fork()
    if child == 0:
        os._exit(0 if _LIBC.unshare(_NEW_USER_NAMESPACE) == 0 else 1)
    if os.waitpid(child, 0)[1] != 0:
        raise OSError("refused")


def attempts(target: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Return every attempt by its name. Those that reach for ``target``'s processes, files and sockets come first."""
    own, here = target["directory"], target["machine_dir"]
    return {
        "write its own directory": lambda: _write(f"{own}/own"),
        "write beside it, in the machine's directory": lambda: _write(f"{here}/planted"),
        "go up into the machine's directory": lambda: _write(f"{own}/../planted"),
        "write to the sandbox's own root": lambda: _write("/planted"),
        "list the other machines": lambda: _see_others("victim", os.path.dirname(here)),
        "read another machine's backup": lambda: Path(target["victim_file"]).read_bytes(),
        "write another machine's backup": lambda: _write(target["victim_file"]),
        "go up and into another machine's backup": lambda: _write(f"{here}/../victim/file"),
        "read the storage's secret": lambda: Path(target["secret_file"]).read_bytes(),
        "read /etc/shadow": lambda: Path("/etc/shadow").read_bytes(),
        "see other processes": lambda: _see_others(str(target["bait"]), "/proc"),
        "read another process's environment": lambda: _read_environment(target["bait"]),
        "trace another process": lambda: _trace(target["bait"]),
        "end another process": lambda: os.kill(target["bait"], signal.SIGKILL),
        "reach a service of this host": lambda: _connect(socket.AF_INET, ("127.0.0.1", target["service_port"])),
        "reach a socket without a path": lambda: _connect(socket.AF_UNIX, target["abstract_socket"]),
        "mount": lambda: _mount(f"{own}/mount"),
        "make a user namespace": _new_user_namespace,
        "make a device": lambda: _device(f"{own}/device"),
        "change the kernel's settings": lambda: _open_to_write("/proc/sys/kernel/core_pattern"),
        "write to the system": lambda: _open_to_write("/usr/bin/env"),
        "change the system's root": lambda: os.chroot("/usr") or os.chdir("/"),  # the last one: it stays
    }


def main() -> None:
    configuration, result = sys.argv[1:3]
    target = json.loads(Path(configuration).read_text())
    found: dict[str, str | None] = {}
    descriptor = os.open(result, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for name, attempt in attempts(target).items():
        try:
            attempt()
            found[name] = None
        except OSError as error:
            found[name] = str(error)
    os.write(descriptor, json.dumps({"attempts": found, "environment": dict(os.environ)}).encode())


if __name__ == "__main__":
    main()
