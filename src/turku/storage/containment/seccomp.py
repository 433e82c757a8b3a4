"""The seccomp filter of a contained rsync: a program that refuses system calls.

A file receiver needs no mounts, namespaces, other processes, kernel keys or modules. It needs no ioctls of file systems
and devices either, which can clear the read-only flag of snapshots and destroy subvolumes. Most of these calls need a
capability that the sandbox has dropped already. The filter also refuses them inside a new user namespace, where a
process has every capability again, and in transfers that keep CAP_SYS_ADMIN to set attributes. Every other use of that
capability is refused here, call by call.

The rules are written once. libseccomp compiles them where it is installed, for every processor. Elsewhere they are
compiled from a table in this module, for two processors.
"""

import ctypes
import errno
import functools
import logging
import os
import platform
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

_WORD: Final = 0xFFFFFFFF
"""The bits of an argument of type int that the kernel reads, whatever a process puts above them."""
# CLONE_NEW: time, mount, cgroup, uts, ipc, user, process and network namespaces.
_NEW_NAMESPACE_FLAGS: Final = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_SOCKET_FAMILIES: Final = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6. The kernel's other families are nothing but attack surface."""
_SMALL_FAMILIES: Final = 16
_TERMINAL_IOCTLS: Final = 0x5400
"""Requests of terminals, sockets and pipes, which a C library uses.

All others are refused: those that make, destroy and receive subvolumes or clear their read-only flag (0x94..), and
those that set flags and attributes of a file.
"""
_IOCTL_KIND: Final = 0xFFFFFF00
_REFUSED_TERMINAL_IOCTLS: Final = (0x5412, 0x541C, 0x541D, 0x5423)
"""TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD: they type input for others, or change the kind of a terminal."""
_POISON_ADVICE: Final = (100, 101)
"""MADV_HWPOISON, MADV_SOFT_OFFLINE: they take memory from the whole host."""
UNAVAILABLE_REASON: Final = (
    f"neither libseccomp nor the table knows the system calls of this processor ({platform.machine()}); install "
    "libseccomp2"
)
"""The reason for a missing filter, and the remedy."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArgumentCondition:
    """The condition that an argument (counted from 0), masked as a 32-bit word, has a value."""

    argument: int
    mask: int
    value: int


@dataclass(frozen=True)
class SyscallRule:
    """A call that is refused, always or under a condition."""

    call: str
    error: int
    condition: ArgumentCondition | None = None


@dataclass(frozen=True)
class SyscallFilter:
    """A filter program for the kernel, and its compiler."""

    content: bytes
    maker: str


# Numbers from the kernel's tables. From 424 on they are the same on every processor.
_COMMON = {
    "io_uring_setup": 425,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    # These two list mounts that the sandbox does not show.
    "statmount": 457,
    "listmount": 458,
    # They set attributes of files, as the refused ioctls do.
    "open_tree_attr": 467,
    "file_setattr": 469,
}
# For each call, its numbers on x86_64 and on aarch64.
_CALLS = {
    "ptrace": (101, 117),
    "syslog": (103, 116),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "acct": (163, 89),
    "mount": (165, 40),
    "umount2": (166, 39),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "quotactl": (179, 60),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "finit_module": (313, 273),
    "kexec_file_load": (320, 294),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    # It would get notices, and descriptors, of files that anybody opens on a volume.
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
}
_CONDITIONAL_CALLS = {"clone": (56, 220), "socket": (41, 198), "ioctl": (16, 29), "madvise": (28, 233)}
_COMMON_CLONE3: Final = 435
# For each machine name: its audit architecture, and the position of its numbers in the tables.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


def rules(machine: str) -> Iterator[SyscallRule]:
    """Yield the rules for one processor. Calls without a rule are allowed."""
    for call in (*_CALLS, *_COMMON):
        yield SyscallRule(call, errno.EPERM)
    # clone3 hides its flags behind a pointer. ENOSYS makes the C library use clone.
    yield SyscallRule("clone3", errno.ENOSYS)
    flags = 1 if machine.startswith("s390") else 0
    for bit in _NEW_NAMESPACE_FLAGS:
        yield SyscallRule("clone", errno.EPERM, ArgumentCondition(flags, bit, bit))
    for family in set(range(_SMALL_FAMILIES)).difference(_SOCKET_FAMILIES):
        yield SyscallRule("socket", errno.EAFNOSUPPORT, ArgumentCondition(0, _WORD, family))
    for bit in _bits(_WORD - _SMALL_FAMILIES + 1):
        yield SyscallRule("socket", errno.EAFNOSUPPORT, ArgumentCondition(0, bit, bit))
    for advice in _POISON_ADVICE:
        yield SyscallRule("madvise", errno.EPERM, ArgumentCondition(2, _WORD, advice))
    for request in _REFUSED_TERMINAL_IOCTLS:
        yield SyscallRule("ioctl", errno.EPERM, ArgumentCondition(1, _WORD, request))
    for bit in _bits(_IOCTL_KIND):
        # A request of another kind differs from the kind of terminals in at least one bit.
        yield SyscallRule("ioctl", errno.EPERM, ArgumentCondition(1, bit, bit & ~_TERMINAL_IOCTLS))


def _bits(mask: int) -> Iterator[int]:
    return (1 << place for place in range(32) if mask & 1 << place)


@functools.cache
def available_filter() -> SyscallFilter | None:
    """Return the filter for this processor. None if its system calls are unknown here."""
    ways: dict[str, Callable[[], bytes | None]] = {
        "libseccomp": _by_library,
        "a table": lambda: table_filter(platform.machine()),
    }
    for maker, make in ways.items():
        try:
            content = make()
        except (OSError, AttributeError, ValueError) as error:
            _LOG.debug("no system-call filter by %s: %s", maker, error)
            continue
        if content:
            return SyscallFilter(content, maker)
    return None


def descriptor() -> int | None:
    """Return a new descriptor that reads the filter from its start. None if there is no filter."""
    found = available_filter()
    if found is None:
        return None
    memory = os.memfd_create("turku-seccomp", os.MFD_CLOEXEC)
    os.write(memory, found.content)
    os.lseek(memory, 0, os.SEEK_SET)
    return memory


# --- by libseccomp, which reports unknown calls, and omits calls that this processor does not have

_ALLOW: Final = 0x7FFF0000
_FAIL: Final = 0x00050000
_BAD_ARCHITECTURE_ATTRIBUTE: Final = 2
_MASKED_EQUAL: Final = 7
_UNKNOWN_CALL: Final = -1


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


def _by_library() -> bytes:
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ALLOW)))
    if not context:
        raise OSError(errno.ENOMEM, "seccomp_init")
    try:
        _require(library.seccomp_attr_set, context, _BAD_ARCHITECTURE_ATTRIBUTE, ctypes.c_uint32(_FAIL | errno.EPERM))
        for rule in rules(platform.machine()):
            number = _number(rule.call, lambda name: library.seccomp_syscall_resolve_name(name.encode()))
            condition = rule.condition
            comparison = (
                None
                if condition is None
                else ctypes.byref(_Comparison(condition.argument, _MASKED_EQUAL, condition.mask, condition.value))
            )
            action = ctypes.c_uint32(_FAIL | rule.error)
            count = ctypes.c_uint(0 if condition is None else 1)
            _require(library.seccomp_rule_add_array, context, action, ctypes.c_int(number), count, comparison)
        with tempfile.TemporaryFile() as file:
            _require(library.seccomp_export_bpf, context, ctypes.c_int(file.fileno()))
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(context)


def _number(call: str, resolve: Any) -> int:
    """Return the number of a call. Newer calls have one number everywhere, and an older library need not know them."""
    number: int = {**_COMMON, "clone3": _COMMON_CLONE3}.get(call, _UNKNOWN_CALL)
    if number == _UNKNOWN_CALL:
        number = resolve(call)
    if number == _UNKNOWN_CALL:
        raise ValueError(f"libseccomp does not know the call {call}")
    return number


def _require(function: Any, *arguments: Any) -> None:
    code = function(*arguments)
    if code != 0:
        raise OSError(-code, f"{function.__name__}: {os.strerror(-code)}")


# --- by the table

_LOAD_WORD, _AND = 0x20, 0x54
_JUMP_EQUAL, _JUMP_AT_LEAST = 0x15, 0x35
_RETURN: Final = 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
_ARGUMENT_BYTES: Final = 8
_X32_BIT: Final = 0x40000000


def call_numbers(machine: str) -> dict[str, int]:
    """Return the number of each call of the rules on a processor that the table has."""
    place = _ARCHITECTURES[machine][1]
    numbers = {call: each[place] for call, each in {**_CALLS, **_CONDITIONAL_CALLS}.items()}
    return {**numbers, **_COMMON, "clone3": _COMMON_CLONE3}


def table_filter(machine: str) -> bytes | None:
    """Return the filter compiled from the table. None if the table does not have the processor."""
    if machine not in _ARCHITECTURES:
        return None
    architecture, numbers = _ARCHITECTURES[machine][0], call_numbers(machine)
    steps = [
        (_LOAD_WORD, 0, 0, _ARCHITECTURE_OFFSET),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
        (_LOAD_WORD, 0, 0, _NUMBER_OFFSET),
        (_JUMP_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
    ]
    conditional: dict[str, list[SyscallRule]] = {}
    for rule in rules(machine):
        if rule.condition is None:
            steps += [(_JUMP_EQUAL, 0, 1, numbers[rule.call]), (_RETURN, 0, 0, _FAIL | rule.error)]
        else:
            conditional.setdefault(rule.call, []).append(rule)
    for call, found in conditional.items():
        inner = [step for rule in found for step in _conditional_steps(rule)]
        steps += [(_JUMP_EQUAL, 0, len(inner) + 1, numbers[call]), *inner, (_RETURN, 0, 0, _ALLOW)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _conditional_steps(rule: SyscallRule) -> list[tuple[int, int, int, int]]:
    if rule.condition is None:
        raise ValueError(f"{rule.call} has no condition")
    return [
        # The lower word of an argument comes first on both processors.
        (_LOAD_WORD, 0, 0, _ARGUMENTS_OFFSET + _ARGUMENT_BYTES * rule.condition.argument),
        (_AND, 0, 0, rule.condition.mask),
        (_JUMP_EQUAL, 0, 1, rule.condition.value),
        (_RETURN, 0, 0, _FAIL | rule.error),
    ]
