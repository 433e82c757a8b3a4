"""Backups with real rsync: privileges, bandwidth, names in logs, refusals, speed."""

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from tests.support import trees
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.killed import as_user
from tests.support.rich_tree import make_rich_tree

from turku.storage.rsync import request

pytestmark = pytest.mark.both_rsyncs

NOBODY = 65534


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path) as machine:
        yield machine


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
@pytest.mark.root
def test_a_storage_without_root_keeps_owners_and_devices_in_attributes() -> None:
    # Not in pytest's own directory: it is closed to other users each time that any pytest starts.
    with tempfile.TemporaryDirectory(prefix="turku-") as directory, backed_up_machine(Path(directory)) as machine:
        Path(directory).chmod(0o755)
        _back_up_as_nobody_twice(machine)


def _back_up_as_nobody_twice(machine: BackedUpMachine) -> None:
    make_rich_tree(machine.source_dir)
    os.chown(machine.machine_dir, NOBODY, NOBODY)
    # Python loads some of its own modules at their first use, and the other user may not be able to read them.
    datetime.strptime("2026", "%Y")

    def run() -> None:
        outcome = machine.back_up(preserve_hard_links=True)
        assert outcome.success, outcome.summary

    for _ in range(2):
        as_user(NOBODY, NOBODY, run)
        machine.clock.moment = machine.clock.moment.replace(hour=13)
    # Its tree: rsync as root follows no link that another user owns.
    first, second = (machine.place.tree(name) for name in machine.snapshots())
    assert (first / "large").stat().st_uid == NOBODY
    assert trees.differences(machine.source_dir, second, "--numeric-ids", "--fake-super") == []
    assert (first / "large").stat().st_ino == (second / "large").stat().st_ino


def test_bwlimit_slows_the_transfer_down(machine: BackedUpMachine) -> None:
    (machine.source_dir / "file").write_bytes(os.urandom(1024 * 1024))
    begin = time.monotonic()
    assert machine.back_up(bwlimit="256").success
    limited = time.monotonic() - begin
    (machine.source_dir / "file").write_bytes(os.urandom(1024 * 1024))
    begin = time.monotonic()
    assert machine.back_up().success
    assert limited > 1.0
    assert time.monotonic() - begin < limited


def test_names_with_line_breaks_break_no_line_of_log_or_summary(
    machine: BackedUpMachine, caplog: pytest.LogCaptureFixture
) -> None:
    name = b"caf\xe9\nERROR: forged"
    with open(os.path.join(os.fsencode(machine.source_dir), name), "wb"):
        pass
    # Something rsync has to say about that very file.
    blocked = machine.with_rsync(
        "sh", "-c", 'mkdir -p "$(printf "caf\\351\\nERROR: forged/x")"; "$0" "$@"; exit 23', "rsync"
    )
    with caplog.at_level(logging.DEBUG):
        outcome = replace(blocked, source="etc").back_up(filter=["P x"])
    assert not outcome.success
    assert "forged" in outcome.summary
    for text in (outcome.summary, *(record.getMessage() for record in caplog.records)):
        assert not any(line.startswith("ERROR: forged") for line in text.splitlines())
        text.encode("utf-8")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"filter": ["merge secrets"]}, "filter: "),
        ({"exclude": ["a\nb"]}, "exclude: "),
        ({"bwlimit": "fast"}, "bwlimit: "),
        ({"snapshot_mode": "attic"}, "snapshot_mode: 'attic'"),
    ],
)
def test_an_order_that_is_refused_touches_nothing(
    machine: BackedUpMachine, options: dict[str, object], reason: str
) -> None:
    outcome = machine.back_up(**options)
    assert not outcome.success
    assert outcome.summary.startswith(reason)
    assert [entry.name for entry in machine.machine_dir.iterdir()] == [".etc.lock"]


def test_rsync_that_cannot_be_started_and_a_daemon_that_is_gone_are_failures_in_words(machine: BackedUpMachine) -> None:
    assert "is the program installed" in machine.with_rsync("/nonexistent/rsync").back_up().summary
    machine.daemon.__exit__(None, None, None)
    outcome = machine.back_up()
    assert not outcome.success
    assert "Connection refused" in outcome.summary


def test_the_source_s_name_may_have_blanks_and_other_scripts(tmp_path: Path) -> None:
    with backed_up_machine(tmp_path, source="mon café, à 5") as machine:
        (machine.source_dir / "file").write_text("content")
        assert machine.back_up().success
        assert machine.differences(machine.newest_tree()) == []


def test_a_working_tree_that_is_a_link_is_not_written_through(machine: BackedUpMachine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    machine.place.working_tree.symlink_to(elsewhere)
    (machine.source_dir / "file").write_text("content")
    outcome = machine.back_up(snapshot_mode="none")
    assert not outcome.success
    assert "is not a directory" in outcome.summary
    # Where history is kept, nothing is written there.
    assert machine.back_up(snapshot_mode="link-dest").success
    assert list(elsewhere.iterdir()) == []


def test_a_file_changed_in_part_is_sent_in_part(machine: BackedUpMachine) -> None:
    content = bytearray(os.urandom(1_000_000))
    (machine.source_dir / "file").write_bytes(content)
    assert machine.back_up().success
    content[500_000:500_010] = b"0123456789"
    (machine.source_dir / "file").write_bytes(content)
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    literal = next(line for line in outcome.summary.splitlines() if line.startswith("Literal data: "))
    assert int(literal.split()[2]) < 10_000


def test_a_change_within_the_same_second_is_seen(machine: BackedUpMachine) -> None:
    path = machine.source_dir / "file"
    path.write_text("before")
    os.utime(path, ns=(10**18, 10**18))
    assert machine.back_up().success
    path.write_text("after!")
    os.utime(path, ns=(10**18, 10**18 + 1))
    assert machine.back_up().success
    assert (machine.newest_tree() / "file").read_text() == "after!"


def test_a_dry_run_lists_at_once_what_is_known_to_be_few(
    machine: BackedUpMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    observed = machine.with_rsync("sh", "-c", f'printf "%s\\n" "$*" >> {log}; exec "$0" "$@"', "rsync")

    def dry_run() -> list[str]:
        log.unlink(missing_ok=True)
        observed.back_up()
        return next((line.split() for line in log.read_text().splitlines() if "--dry-run" in line), [])

    (machine.source_dir / "one").write_text("1")
    (machine.source_dir / "two").write_text("2")
    assert dry_run() == []
    assert "--no-inc-recursive" in dry_run()
    monkeypatch.setattr(request, "LIST_FIRST_LIMIT_FILES", 1)
    assert "--dry-run" in dry_run()
    assert "--no-inc-recursive" not in dry_run()
