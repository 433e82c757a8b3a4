"""Every property that Linux keeps of a file is in the snapshot, in every mode, and so is a change of it alone."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support import rsync_programs
from tests.support.attribute_tree import (
    ACCESS_ACL,
    GROUP,
    MASK,
    NOBODY,
    OTHER,
    OWNER,
    USER,
    acl,
    different_facts,
    facts,
    make_attribute_tree,
)
from tests.support.backed_up_machine import BackedUpMachine

from turku.core import command
from turku.core.configuration.declaration import with_values
from turku.storage.snapshots import SnapshotMode

FAKE_SUPER = [None, True] if os.geteuid() == 0 else [None]


@pytest.fixture(params=FAKE_SUPER)
def attributed(request: pytest.FixtureRequest, machine: BackedUpMachine) -> BackedUpMachine:
    """A machine whose source has everything, at a storage that keeps owners as they are, or in attributes."""
    machine.storage = with_values(machine.storage, fake_super=request.param)
    make_attribute_tree(machine.source_dir)
    return machine


def as_machine_has_it(machine: BackedUpMachine, tree: Path) -> dict[str, dict[str, object]]:
    """The facts of the tree, where owners are kept in attributes those of a copy that has them as they were."""
    if machine.storage.receiving.fake_super is not True and os.geteuid() == 0:
        return facts(tree)
    # Not on XFS, of whose ACLs rsync sees more than it should.
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "copy"
        # Fake super is of the sending side alone here.
        options = ["-aHAXS", "--numeric-ids", "--modify-window=-1", "-M--fake-super"]
        rsync = rsync_programs.chosen.storage
        shell = Path(name) / "shell"
        shell.write_text('#!/bin/sh\nshift\nexec "$@"\n')
        shell.chmod(0o755)
        command.run(
            [rsync, *options, "-e", str(shell), f"--rsync-path={rsync}", f"here:{tree}/", f"{copy}/"],
            timeout_seconds=60,
        )
        return facts(copy)


def assert_kept(machine: BackedUpMachine) -> None:
    assert different_facts(facts(machine.source_dir), as_machine_has_it(machine, machine.newest_tree().resolve())) == []


def test_everything_is_in_the_first_snapshot_and_the_next(
    attributed: BackedUpMachine, mode: type[SnapshotMode]
) -> None:
    for _ in range(2):
        outcome = attributed.back_up()
        assert outcome.success, outcome.summary
        assert_kept(attributed)
    if mode.keeps_history:
        assert outcome.strategy == "unchanged", outcome.summary


@pytest.mark.skipif(os.geteuid() != 0, reason="without root these are where rsync keeps owners")
def test_a_source_that_holds_attributes_of_rsyncs_own_keeps_them(machine: BackedUpMachine) -> None:
    (machine.source_dir / "file").write_text("of another storage")
    os.setxattr(machine.source_dir / "file", "user.rsync.%stat", b"100644 0,0 12:34")
    for _ in range(2):
        assert machine.back_up().success
        assert_kept(machine)


def set_attribute(root: Path) -> None:
    os.setxattr(root / "plain", "user.new", b"value")


def change_attribute(root: Path) -> None:
    os.setxattr(root / "user attribute", "user.comment", b"another")


def remove_attribute(root: Path) -> None:
    os.removexattr(root / "user attribute", "user.comment")


def give_an_acl(root: Path) -> None:
    entries = ((OWNER, 6, NOBODY), (USER, 4, 99), (GROUP, 4, NOBODY), (MASK, 4, NOBODY), (OTHER, 4, NOBODY))
    os.setxattr(root / "plain", ACCESS_ACL, acl(*entries))


def remove_an_acl(root: Path) -> None:
    os.removexattr(root / "with acl", ACCESS_ACL)
    (root / "with acl").chmod(0o600)


def change_a_directory(root: Path) -> None:
    os.setxattr(root / "directory", "user.comment", b"another")


def further_name(root: Path) -> None:
    os.link(root / "alone", root / "directory" / "alone too")


def change_all_names(root: Path) -> None:
    with (root / "one").open("a") as file:
        file.write(" and more")


def change_the_mode_of_all_names(root: Path) -> None:
    (root / "three").chmod(0o604)


def part_names(root: Path) -> None:
    (root / "three").unlink()
    (root / "three").write_text("another")


def join_names(root: Path) -> None:
    (root / "three").unlink()
    os.link(root / "alone", root / "three")


def names_with_arrows(root: Path) -> None:
    (root / "a => b").write_text("arrow")
    os.link(root / "a => b", root / "a => b => c")
    os.link(root / "one", root / "directory" / "y => one")
    (root / "d e").symlink_to(" => f -> g")


def remove_one_name(root: Path) -> None:
    (root / "one").unlink()


def change_the_time_of_what_is_no_file(root: Path) -> None:
    for name in ("link", "fifo", "socket", "character"):
        if os.path.lexists(root / name):
            os.utime(root / name, ns=(1, 1), follow_symlinks=False)


def remove_the_attributes_of_what_is_no_file(root: Path) -> None:
    for name in ("link", "fifo"):
        for attribute in os.listxattr(root / name, follow_symlinks=False) if os.path.lexists(root / name) else ():
            os.removexattr(root / name, attribute, follow_symlinks=False)
    os.utime(root / "link", ns=(1, 1), follow_symlinks=False)


CHANGES: list[Callable[[Path], None]] = [
    set_attribute, change_attribute, remove_attribute, give_an_acl, remove_an_acl, change_a_directory, further_name,
    change_all_names, change_the_mode_of_all_names, part_names, join_names, names_with_arrows, remove_one_name,
    change_the_time_of_what_is_no_file, remove_the_attributes_of_what_is_no_file,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_it_alone_is_a_new_snapshot(
    attributed: BackedUpMachine, mode: type[SnapshotMode], change: Callable[[Path], None]
) -> None:
    if attributed.storage.receiving.fake_super is True and mode.shares_blocks:
        pytest.skip("rsync's own attributes are changed by the same code in mode none")
    outcome = attributed.back_up()
    assert outcome.success, outcome.summary
    before = facts(attributed.newest_tree()) if mode.keeps_history else {}
    change(attributed.source_dir)
    outcome = attributed.back_up()
    assert outcome.success, outcome.summary
    assert outcome.strategy == ("incremental" if mode.name == "link-dest" else "in-place"), outcome.strategy_reason
    assert_kept(attributed)
    if mode.keeps_history:
        first = attributed.place.tree(attributed.snapshots()[0])
        # Nothing of the snapshot before was changed by it.
        assert different_facts(before, facts(first)) == []


@pytest.mark.parametrize("is_link", [True, False])
def test_names_that_can_be_read_in_two_ways_are_kept_by_a_full_run(
    attributed: BackedUpMachine, mode: type[SnapshotMode], *, is_link: bool
) -> None:
    assert attributed.back_up().success
    (remove_the_attributes_of_what_is_no_file if is_link else change_the_time_of_what_is_no_file)(attributed.source_dir)
    if is_link:
        (attributed.source_dir / "d|e").symlink_to(" => f -> g|")
    else:
        os.link(attributed.source_dir / "one", attributed.source_dir / "directory" / "x|y => one")
    outcome = attributed.back_up()
    assert outcome.success, outcome.summary
    assert outcome.strategy == ("full" if mode.name == "link-dest" else "in-place"), outcome.strategy_reason
    assert_kept(attributed)


@pytest.mark.parametrize("left_out", ["acls", "attributes", "hard_links", "holes"])
def test_a_source_leaves_out_what_it_says(attributed: BackedUpMachine, left_out: str) -> None:
    outcome = attributed.back_up(not_preserved=[left_out])
    assert outcome.success, outcome.summary
    found = as_machine_has_it(attributed, attributed.newest_tree())
    lines = different_facts(facts(attributed.source_dir), found)
    words = {
        "acls": (ACCESS_ACL, "system.posix_acl_default"),
        "attributes": ("user.", "trusted.", "security."),
        "hard_links": ("names",),
        "holes": ("holes",),
    }[left_out]
    # A sparse copy made for comparing has holes again.
    assert lines or left_out == "holes"
    assert [line for line in lines if not any(f": {word}" in line for word in words)] == []
