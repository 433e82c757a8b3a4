"""M9: a receiver that runs the attacker's code tries each system call that the filter refuses, inside the real sandbox:
mounts, namespaces, other processes, and what clears the read-only flag of history or destroys it."""

import errno
import json
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.loop_volume import loop_volume

from turku.core import command
from turku.storage.containment import bubblewrap, capabilities, seccomp
from turku.storage.containment.seccomp import SyscallFilter
from turku.storage.fs import subvolume

pytestmark = [
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    pytest.mark.skipif(platform.machine() not in seccomp._ARCHITECTURES, reason="numbers of other calls"),
]
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3"
# Calls by number with harmless or empty arguments. The kernel's answer to each comes back.
TRYING = """\
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
said = {}
for name, number, arguments in json.loads(sys.argv[1]):
    given = []
    for word in arguments:
        if isinstance(word, str) and word.startswith("/"):
            word = os.open(word, os.O_RDONLY)
        elif isinstance(word, str):
            word = ctypes.create_string_buffer(bytes.fromhex(word), 8192)
        given.append(ctypes.c_ulong(word) if isinstance(word, int) else word)
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *given)
    said[name] = ctypes.get_errno() if result == -1 else 0
print(json.dumps(said))
"""
IOCTLS = {
    "BTRFS_IOC_SNAP_CREATE": 0x50009401,
    "BTRFS_IOC_SUBVOL_CREATE": 0x5000940E,
    "BTRFS_IOC_SNAP_DESTROY": 0x5000940F,
    "BTRFS_IOC_SNAP_CREATE_V2": 0x50009417,
    "BTRFS_IOC_SUBVOL_CREATE_V2": 0x50009418,
    "BTRFS_IOC_SUBVOL_SETFLAGS": 0x4008941A,
    "BTRFS_IOC_SET_RECEIVED_SUBVOL": 0xC0C89425,
    "BTRFS_IOC_SET_RECEIVED_SUBVOL_32": 0xC0C09425,
    "BTRFS_IOC_SNAP_DESTROY_V2": 0x5000943F,
    "FICLONE": 0x40049409,
    "FS_IOC_SETFLAGS": 0x40086602,
    "FS_IOC_FSSETXATTR": 0x401C5820,
    "TIOCSTI": 0x5412,
}
Attempt = tuple[str, int, Sequence[int | str]]


def by_table() -> bytes:
    return seccomp.table_filter(platform.machine()) or b""


WAYS: dict[str, Callable[[], bytes]] = {"table": by_table, "library": seccomp._by_library}


@pytest.fixture(params=WAYS)
def filtered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter as one of the ways makes it."""
    content = WAYS[request.param]()
    monkeypatch.setattr(seccomp, "available_filter", lambda: SyscallFilter(content, request.param))


OF_ATTRIBUTES = (*capabilities.OWNER_CAPABILITIES, capabilities.FILE_CAPABILITY, capabilities.ATTRIBUTE_CAPABILITY)
"""The capabilities of a receiver that sets ``trusted.*`` and ``security.*``."""


def said(
    attempts: Sequence[Attempt],
    machine_dir: Path,
    *,
    is_filtered: bool = True,
    capabilities: Sequence[str] = capabilities.OWNER_CAPABILITIES,
) -> dict[str, int]:
    """Return the kernel's answer to each attempt in the receiver's sandbox. 0 is that it was done."""
    with ExitStack() as stack:
        options, descriptors = bubblewrap.syscall_filter(stack) if is_filtered else ((), ())
        argv = bubblewrap.wrap(
            [PYTHON, "-c", TRYING, json.dumps(attempts)],
            writable={str(machine_dir): machine_dir},
            directory=str(machine_dir),
            capabilities=capabilities if os.geteuid() == 0 else None,
            options=options,
        )
        child = stack.enter_context(command.start(argv, stdout=True, pass_descriptors=descriptors))
        output = child.stdout.read()
        assert child.wait(20) == 0, child.last_lines
    answer: dict[str, int] = json.loads(output)
    return answer


@pytest.mark.usefixtures("filtered")
@pytest.mark.parametrize("capabilities", [capabilities.OWNER_CAPABILITIES, OF_ATTRIBUTES], ids=["owners", "attributes"])
def test_m9_each_refused_call_is_refused_in_the_sandbox(tmp_path: Path, capabilities: Sequence[str]) -> None:
    known = seccomp.call_numbers(platform.machine())
    calls = (*seccomp._CALLS, *seccomp._COMMON)
    attempts: list[Attempt] = [(name, known[name], [0, 0, 0, 0, 0]) for name in calls]
    attempts += [(f"clone {flag:#x}", known["clone"], [flag | 17, 0, 0, 0, 0]) for flag in (0x10000000, 0x20000)]
    # MADV_HWPOISON and MADV_SOFT_OFFLINE take memory away from the whole host.
    attempts += [(f"madvise {advice}", known["madvise"], [0, 4096, advice]) for advice in (100, 101)]

    def tried(those: Sequence[Attempt]) -> dict[str, int]:
        return said(those, tmp_path, capabilities=capabilities)

    assert tried(attempts) == {name: errno.EPERM for name, _number, _arguments in attempts}
    assert tried([("clone3", known["clone3"], [0, 0])]) == {"clone3": errno.ENOSYS}
    families: list[Attempt] = [(str(family), known["socket"], [family, 2, 0]) for family in (16, 17, 38, 40)]
    assert set(tried(families).values()) == {errno.EAFNOSUPPORT}


WRITING_SETTINGS = """\
import ctypes, json, os
found = []
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/self/oom_score_adj"):
    try:
        open(path, "w").close()
        found.append(path)
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
for call in ("sethostname", "setdomainname"):
    if getattr(libc, call)(b"taken", 5) == 0:
        found.append(call)
print(json.dumps(found))
"""


@pytest.mark.usefixtures("filtered")
@pytest.mark.skipif(os.geteuid() != 0, reason="others keep no capability")
def test_m9_a_receiver_of_attributes_changes_nothing_of_the_host(tmp_path: Path) -> None:
    host = os.uname().nodename
    with ExitStack() as stack:
        options, descriptors = bubblewrap.syscall_filter(stack)
        argv = bubblewrap.wrap(
            [PYTHON, "-c", WRITING_SETTINGS],
            writable={str(tmp_path): tmp_path},
            directory=str(tmp_path),
            capabilities=OF_ATTRIBUTES,
            options=options,
        )
        child = stack.enter_context(command.start(argv, stdout=True, pass_descriptors=descriptors))
        output = json.loads(child.stdout.read())
        assert child.wait(20) == 0, child.last_lines
    # The name is that of its own namespace.
    assert set(output) <= {"sethostname", "setdomainname"}
    assert os.uname().nodename == host


def ioctls(path: Path) -> list[Attempt]:
    """Each of them as it is, and with something above the word that the kernel looks at."""
    number = seccomp.call_numbers(platform.machine())["ioctl"]
    above = 0xABCD << 32
    return [
        (f"{name}{suffix}", number, [str(path), request | more, ""])
        for name, request in IOCTLS.items()
        for suffix, more in (("", 0), (" with more above", above))
    ]


@pytest.mark.usefixtures("filtered")
def test_m9_no_ioctl_of_a_file_system_is_made_in_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    attempts = ioctls(tmp_path / "file")
    assert said(attempts, tmp_path) == {name: errno.EPERM for name, _number, _arguments in attempts}
    # It is the filter: without it the kernel says other things.
    assert errno.ENOTTY in said(attempts, tmp_path, is_filtered=False).values()
    ordinary: list[Attempt] = [
        ("TCGETS", seccomp.call_numbers(platform.machine())["ioctl"], [str(tmp_path / "file"), 0x5401, ""])
    ]
    assert said(ordinary, tmp_path) == {"TCGETS": errno.ENOTTY}


def vol_args(name: bytes) -> str:
    """``struct btrfs_ioctl_vol_args``."""
    return (bytes(8) + name).hex()


def vol_args_v2(name: bytes) -> str:
    """``struct btrfs_ioctl_vol_args_v2``."""
    return (bytes(56) + name).hex()


def test_m9_history_on_btrfs_stays_read_only_whatever_a_receiver_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a btrfs of its own")
    number = seccomp.call_numbers(platform.machine())["ioctl"]
    with loop_volume("btrfs", directory=tmp_path) as volume:
        machine_dir = volume / "machine"
        machine_dir.mkdir()
        history = machine_dir / "history"
        subvolume.create(history)
        (history / "file").write_text("content")
        subvolume.set_read_only(history, read_only=True)
        flags: Attempt = ("SETFLAGS", number, [str(history), IOCTLS["BTRFS_IOC_SUBVOL_SETFLAGS"], bytes(8).hex()])
        parent = str(machine_dir)
        attempts: list[Attempt] = [
            flags,
            ("DESTROY", number, [parent, IOCTLS["BTRFS_IOC_SNAP_DESTROY"], vol_args(b"history")]),
            ("DESTROY_V2", number, [parent, IOCTLS["BTRFS_IOC_SNAP_DESTROY_V2"], vol_args_v2(b"history")]),
            ("CREATE", number, [parent, IOCTLS["BTRFS_IOC_SUBVOL_CREATE"], vol_args(b"made")]),
            ("CREATE_V2", number, [parent, IOCTLS["BTRFS_IOC_SUBVOL_CREATE_V2"], vol_args_v2(b"made2")]),
        ]
        for way, make in WAYS.items():
            if way == "binding":
                continue
            content = make()
            monkeypatch.setattr(seccomp, "available_filter", lambda made=content: SyscallFilter(made, "test"))
            assert set(said(attempts, machine_dir).values()) == {errno.EPERM}
            with pytest.raises(OSError, match="Read-only"):
                (history / "file").write_text("changed")
            assert sorted(path.name for path in machine_dir.iterdir()) == ["history"]
        # Without the filter a receiver clears it.
        assert said([flags], machine_dir, is_filtered=False) == {"SETFLAGS": 0}
        (history / "file").write_text("changed")
