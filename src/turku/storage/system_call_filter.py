"""The system calls that a contained receiver may not make: a small seccomp program.

A file receiver has no business with mounts, namespaces, other processes, kernel keys or modules. Most of these calls
need a capability that the sandbox has dropped already; the filter also closes them for whoever makes a user namespace,
where a process has every capability again.
"""

from __future__ import annotations

import errno
import os
import platform
import struct

_ALLOW = 0x7FFF0000
_FAIL = 0x00050000
_LOAD_WORD = 0x20
_JUMP_EQUAL = 0x15
_JUMP_AT_LEAST = 0x35
_JUMP_ANY_BIT = 0x45
_RETURN = 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16
_X32_BIT = 0x40000000
# CLONE_NEW: time, mount, cgroup, uts, ipc, user, process and network namespaces.
_NEW_NAMESPACE_FLAGS = (
    0x00000080 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
)
_SOCKET_FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6: the kernel's other families are attack surface only."""

# Numbers from the kernel's tables; from 424 on they are the same on every architecture.
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
}
_X86_64 = {
    "ptrace": 101,
    "syslog": 103,
    "pivot_root": 155,
    "chroot": 161,
    "acct": 163,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "swapoff": 168,
    "reboot": 169,
    "init_module": 175,
    "delete_module": 176,
    "quotactl": 179,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "unshare": 272,
    "perf_event_open": 298,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "finit_module": 313,
    "kexec_file_load": 320,
    "bpf": 321,
    "userfaultfd": 323,
}
_AARCH64 = {
    "umount2": 39,
    "mount": 40,
    "pivot_root": 41,
    "chroot": 51,
    "quotactl": 60,
    "acct": 89,
    "unshare": 97,
    "kexec_load": 104,
    "init_module": 105,
    "delete_module": 106,
    "syslog": 116,
    "ptrace": 117,
    "reboot": 142,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "swapon": 224,
    "swapoff": 225,
    "perf_event_open": 241,
    "open_by_handle_at": 265,
    "setns": 268,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "finit_module": 273,
    "bpf": 280,
    "userfaultfd": 282,
    "kexec_file_load": 294,
}
_CLONE3 = 435
# Machine name to: audit architecture, refused calls, clone, socket.
_ARCHITECTURES = {
    "x86_64": (0xC000003E, _X86_64, 56, 41),
    "aarch64": (0xC00000B7, _AARCH64, 220, 198),
}


def program(machine: str | None = None) -> bytes | None:
    """The compiled filter for this processor; None where its system call numbers are not known to us."""
    known = _ARCHITECTURES.get(machine or platform.machine())
    if known is None:
        return None
    architecture, refused, clone, socket = known
    steps = [
        (_LOAD_WORD, 0, 0, _ARCHITECTURE_OFFSET),
        # Another calling convention has other numbers: refused whole.
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
        (_LOAD_WORD, 0, 0, _NUMBER_OFFSET),
        (_JUMP_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
    ]
    for number in sorted({**refused, **_COMMON}.values()):
        steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _FAIL | errno.EPERM)]
    # clone3 hides its flags behind a pointer; "no such call" makes the C library use clone.
    steps += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _FAIL | errno.ENOSYS)]
    steps += [
        (_JUMP_EQUAL, 0, 4, clone),
        (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT_OFFSET),
        (_JUMP_ANY_BIT, 0, 1, _NEW_NAMESPACE_FLAGS),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    steps += [(_JUMP_EQUAL, 0, len(_SOCKET_FAMILIES) + 2, socket), (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT_OFFSET)]
    for position, family in enumerate(_SOCKET_FAMILIES):
        steps.append((_JUMP_EQUAL, len(_SOCKET_FAMILIES) - position, 0, family))
    steps += [(_RETURN, 0, 0, _FAIL | errno.EAFNOSUPPORT), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def descriptor() -> int | None:
    """A new descriptor that reads the filter from its start, to be closed by the caller; None as in ``program``."""
    content = program()
    if content is None:
        return None
    memory = os.memfd_create("turku-seccomp", os.MFD_CLOEXEC)
    os.write(memory, content)
    os.lseek(memory, 0, os.SEEK_SET)
    return memory
