"""The source of the snapshot mode that counts, and the part of an order that reaches rsync."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import order, storage_configuration

from turku.core.configuration.declaration import with_values
from turku.errors import BackupFailed, InvalidValue
from turku.storage.backup.job import mode_name, transfer_options
from turku.storage.config.model import StorageConfig

MEMORY = Path("/dev/shm")
"""A file system in memory, which can neither clone nor make subvolumes."""


@pytest.fixture
def storage(tmp_path: Path) -> StorageConfig:
    return storage_configuration(tmp_path)


@pytest.mark.parametrize(
    ("options", "configured", "expected"),
    [
        ({}, "link-dest", "link-dest"),
        ({}, "none", "none"),
        ({"large_rotating_files": True}, "link-dest", "none"),
        ({"large_modifying_files": True}, "link-dest", "none"),
        ({"large_modifying_files": True, "snapshot_mode": "link-dest"}, "none", "link-dest"),
        ({"snapshot_mode": "none"}, "link-dest", "none"),
        ({"snapshot_mode": ""}, "none", "none"),
        ({"large_modifying_files": True}, "btrfs", "btrfs"),
        ({"large_rotating_files": True}, "reflink", "reflink"),
        ({"large_rotating_files": True, "snapshot_mode": "none"}, "reflink", "none"),
        ({"snapshot_mode": "reflink"}, "none", "reflink"),
        ({}, "auto", "link-dest"),
        ({"large_modifying_files": True}, "auto", "none"),
        ({"large_modifying_files": True, "snapshot_mode": "auto"}, "link-dest", "none"),
        ({"large_modifying_files": True, "allowed_snapshot_modes": ["auto", "link-dest"]}, "auto", "link-dest"),
    ],
)
def test_the_source_s_mode_wins_over_large_files_and_they_over_the_configuration(
    storage: StorageConfig, options: dict[str, Any], configured: str, expected: str
) -> None:
    assert mode_name(order(**options), with_values(storage, snapshot_mode=configured).receiving, MEMORY) == expected


def test_a_mode_that_does_not_exist_is_refused_and_those_that_do_are_named(storage: StorageConfig) -> None:
    with pytest.raises(BackupFailed, match=r"'attic' is none of link-dest, none, btrfs, reflink, auto"):
        mode_name(order(snapshot_mode="attic"), storage.receiving, MEMORY)


def test_filter_rules_come_before_excludes(storage: StorageConfig) -> None:
    chosen = transfer_options(order(filter=["+ /keep/***", "hide *.o"], exclude=["*.tmp"]), storage.receiving)
    assert chosen.rules == ("+ /keep/***", "H *.o", "- *.tmp")


def test_hard_links_are_kept_unless_source_or_configuration_leaves_them_out(storage: StorageConfig) -> None:
    without = with_values(storage, preserve_hard_links=False)
    assert transfer_options(order(), storage.receiving).hard_links
    assert not transfer_options(order(), without.receiving).hard_links
    assert transfer_options(order(preserve_hard_links=True), without.receiving).hard_links
    assert not transfer_options(order(not_preserved=["hard_links"]), storage.receiving).hard_links


def test_an_attribute_that_a_source_leaves_out_is_left_out_alone(storage: StorageConfig) -> None:
    chosen = transfer_options(order(not_preserved=["acls", "holes"]), storage.receiving)
    assert (chosen.acls, chosen.attributes, chosen.hard_links, chosen.holes) == (False, True, True, False)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"filter": ["merge /etc/shadow"]}, "filter: "),
        ({"filter": [": .rules"]}, "filter: "),
        ({"filter": ["!"]}, "filter: "),
        ({"exclude": ["a\n+ b"]}, "exclude: "),
        ({"exclude": ["!"]}, "exclude: "),
        ({"bwlimit": "fast"}, "bwlimit: "),
        ({"not_preserved": ["owners"]}, "not_preserved: 'owners' is not one of acls, "),
        ({"bwlimit": -1}, "bwlimit: "),
    ],
)
def test_an_option_that_reads_files_here_or_is_malformed_is_refused_by_name(
    storage: StorageConfig, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidValue, match=f"^{named}"):
        transfer_options(order(**options), storage.receiving)
