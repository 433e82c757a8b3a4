"""The capabilities of root that a contained rsync keeps."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from turku.core.filesystem import extended_attributes
from turku.storage.containment import seccomp
from turku.storage.containment.bubblewrap import sandbox_availability

if TYPE_CHECKING:
    from turku.storage.config.model import ReceivingConfig, StorageConfig

FAKE_SUPER_CAPABILITIES = ("CAP_DAC_OVERRIDE", "CAP_FOWNER")
OWNER_CAPABILITIES = (*FAKE_SUPER_CAPABILITIES, "CAP_CHOWN", "CAP_FSETID")
"""FSETID: without it the kernel silently clears setgid bits of files that belong to groups other than root's."""
DEVICE_CAPABILITY = "CAP_MKNOD"
FILE_CAPABILITY = "CAP_SETFCAP"
"""Sets ``security.capability``, which has the effect of setuid on a file."""
ATTRIBUTE_CAPABILITY = "CAP_SYS_ADMIN"
"""Reads and sets ``trusted.*``, and sets ``security.*``."""
_CAPABILITY_BITS = {FILE_CAPABILITY: 31, ATTRIBUTE_CAPABILITY: 21}
SENDER_CAPABILITIES = ("CAP_DAC_READ_SEARCH",)
"""Snapshots are read regardless of the permissions that the machine's files have."""


def of_receiver(
    configuration: "ReceivingConfig", *, fake_super: bool, keeps_privileged_attributes: bool = False
) -> Sequence[str] | None:
    """Return the capabilities of an rsync that receives, None without root."""
    if os.geteuid() != 0:
        return None
    if fake_super:
        return FAKE_SUPER_CAPABILITIES
    return (
        *OWNER_CAPABILITIES,
        *([DEVICE_CAPABILITY] if configuration.keep_devices else []),
        *(_attribute_capabilities(configuration) if keeps_privileged_attributes else []),
    )


def of_sender(configuration: "ReceivingConfig") -> Sequence[str] | None:
    """Return the capabilities of an rsync that sends, None without root."""
    if os.geteuid() != 0:
        return None
    attributes = [each for each in _attribute_capabilities(configuration) if each == ATTRIBUTE_CAPABILITY]
    return (*SENDER_CAPABILITIES, *attributes)


def privileged_attributes(configuration: "StorageConfig") -> tuple[str, ...]:
    """Return the patterns of rsync's filter for attributes that only root can set and that rsync can keep here.

    A host with SELinux gives each file a label of its own, which differs from the machine's.
    """
    if not configuration.receiving.keep_privileged_attributes:
        return ()
    if sandbox_availability(configuration.limits).is_used:
        held = _attribute_capabilities(configuration.receiving)
    else:
        held = [each for each in _CAPABILITY_BITS if _has_capability(each)]
    if ATTRIBUTE_CAPABILITY not in held:
        return ("security.capability",) if FILE_CAPABILITY in held else ()
    if extended_attributes.are_labelled_here():
        return ("trusted.*", "security.capability", "security.ima")
    return ("trusted.*", "security.*")


def _attribute_capabilities(configuration: "ReceivingConfig") -> list[str]:
    if not configuration.keep_privileged_attributes:
        return []
    wanted = [FILE_CAPABILITY]
    if seccomp.available_filter() is not None:
        wanted.append(ATTRIBUTE_CAPABILITY)
    return [each for each in wanted if _has_capability(each)]


@functools.cache
def _has_capability(name: str) -> bool:
    """Return True if this process has the capability. In a container root may lack it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAPABILITY_BITS[name] & 1)
    return False
