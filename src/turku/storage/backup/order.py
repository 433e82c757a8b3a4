"""The snapshot mode and the transfer options that a coordinator's order asks for.

Every rule is checked again here, because the coordinator may be an older one, or hostile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.errors import BackupFailed, InvalidValue
from turku.policy import bandwidth, compression, filters, run_options, snapshot_mode
from turku.policy.run_options import FileProperty
from turku.protocol.messages import SourceOrder
from turku.storage.config.model import ReceivingConfig
from turku.storage.fs import clone, subvolume
from turku.storage.rsync.request import TransferOptions


def mode_name(order: SourceOrder, configuration: ReceivingConfig, machine_dir: Path) -> str:
    """Return the snapshot mode of the source's backup (contract, sections 2 and 5).

    ``auto`` is settled for the volume that holds the machine's directory. Raises BackupFailed for a mode that this
    storage does not have.
    """
    has_large_files = order.large_rotating_files or order.large_modifying_files
    name = snapshot_mode.selected(
        order.snapshot_mode or "", configuration.snapshot_mode, has_large_files=has_large_files
    )
    if name not in snapshot_mode.NAMES:
        raise BackupFailed(
            f"snapshot_mode: {name!r} is none of {', '.join(snapshot_mode.NAMES)}",
            hint="fix the source's snapshot_mode on the machine, or leave it out",
        )
    if name == snapshot_mode.AUTO:
        return snapshot_mode.settled(
            has_large_files=has_large_files,
            allowed=order.allowed_snapshot_modes,
            is_btrfs=lambda: subvolume.is_btrfs(machine_dir),
            can_clone=lambda: clone.can_clone(machine_dir),
        )
    return name


def transfer_options(order: SourceOrder, configuration: ReceivingConfig) -> TransferOptions:
    """Return the options of the order's transfers. Raises InvalidValue with the name of a wrong option."""
    with _naming("filter"):
        rules = [filters.parse_rule(text).text for text in order.filter]
    with _naming("exclude"):
        # After the filter, as existing storages have it: the first rule that matches decides.
        rules += [filters.parse_exclude(text).filter_text for text in order.exclude]
    with _naming("bwlimit"):
        limits = bandwidth.parse(order.bandwidth_windows or order.bwlimit)
    with _naming("not_preserved"):
        omitted = run_options.parse_not_preserved(order.not_preserved)
    return TransferOptions(
        rules=tuple(rules),
        hard_links=order.preserve_hard_links
        or (configuration.preserve_hard_links and FileProperty.HARD_LINKS not in omitted),
        acls=FileProperty.ACLS not in omitted,
        attributes=FileProperty.ATTRIBUTES not in omitted,
        holes=FileProperty.HOLES not in omitted,
        one_file_system=order.one_file_system,
        bandwidth_kib_per_second=limits.constant,
        bandwidth_limits=limits,
        compare_contents=order.compare_contents,
    )


def compression_choice(order: SourceOrder) -> compression.Compression:
    """Return the order's choice of compression. Raises InvalidValue."""
    with _naming("compress"):
        return compression.parse(order.compress or compression.Compression.AUTO)


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Put the name of the option before the message of an InvalidValue."""
    try:
        yield
    except InvalidValue as error:
        raise InvalidValue(f"{option}: {error.message}", hint=error.hint) from error
