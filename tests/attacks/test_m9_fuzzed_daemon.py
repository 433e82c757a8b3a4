"""M9: a daemon that answers an honest receiver with damaged or made-up protocol data changes nothing but its own.

`bench/fuzz_receiver.py` runs 10,000 such sessions. Here is a part, and the faults that it found.
"""

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import catalog_oracle
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine, fingerprint
from tests.support.forged_messages import DELETED, framed
from tests.support.fuzzed_volume import MODES, FuzzedVolume, fuzzed_volume
from tests.support.malicious_rsync_server import SPOKEN, Entry, MaliciousRsyncServer
from tests.support.markdown import REPOSITORY
from tests.support.mutating_relay import MutatingRelay, Plan

from turku.core import command
from turku.storage import catalog
from turku.storage.backup.job import BackupReport
from turku.storage.fs.stored_content import RateLimiter
from turku.storage.integrity import scrub
from turku.storage.integrity.scrub import ScrubShare
from turku.storage.rsync import change_log
from turku.storage.rsync.change_log import Change, ChangeKind
from turku.storage.snapshots import assembly
from turku.storage.snapshots.assembly import IncrementalFailed

SESSIONS = 40
TMPFS = Path("/dev/shm")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has volumes of all kinds")


@pytest.mark.root
@needs_root
@pytest.mark.timeout(180)
def test_m9_fuzzed_sessions_in_all_modes_change_nothing_but_their_own() -> None:
    arguments = ["--sessions", str(SESSIONS), "--episode-sessions", str(SESSIONS // len(MODES)), "--nice", "0"]
    done = command.run(
        [sys.executable, "-m", "bench.fuzz_receiver", *arguments],
        timeout_seconds=170,
        working_directory=REPOSITORY,
        check=False,
    )
    assert done.exit_code == 0, done.stdout.decode() + "\n".join(done.last_lines)
    assert f"{SESSIONS} sessions" in done.stdout.decode()


# --- the fuzzer itself: what it looks for, it finds


@pytest.fixture
def fuzzed(tmp_path: Path) -> Iterator[FuzzedVolume]:
    (tmp_path / "volume").mkdir()
    (tmp_path / "beside").mkdir()
    with fuzzed_volume(tmp_path / "beside", tmp_path / "volume", "link-dest") as fuzzed:
        yield fuzzed


def test_the_fuzzer_notices_what_changed_that_must_not(fuzzed: FuzzedVolume) -> None:
    assert fuzzed.faults(None) == []
    place, other = fuzzed.machine.place, fuzzed.other.place
    base = place.tree(fuzzed.machine.snapshots()[-1])
    for path in (base / "alpha", other.tree(fuzzed.other.snapshots()[0]) / "file", fuzzed.directory / "bait" / "file"):
        status, content = path.stat(), path.read_bytes()
        path.write_bytes(content[:-1] + b"!")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert any(f"{path.name} changed" in fault for fault in fuzzed.faults(None)), path
    for path in (place.snapshots_dir / "planted", place.machine_dir / "planted", fuzzed.directory / "bait" / "planted"):
        path.touch()
        assert any("planted was made" in fault for fault in fuzzed.faults(None)), path
        path.unlink()
        assert any("planted is gone" in fault for fault in fuzzed.faults(None)), path
    trashed = next(place.snapshots_dir.glob(".trash-*"))
    (trashed / "alpha").chmod(0o600) if trashed.is_dir() else trashed.unlink()
    assert any(".trash-" in fault for fault in fuzzed.faults(None))


def test_the_fuzzer_notices_a_snapshot_of_a_run_that_failed(fuzzed: FuzzedVolume) -> None:
    made = fuzzed.machine.place.snapshots_dir / "etc_20270101-000000_abcd"
    made.mkdir()
    failed = BackupReport(success=False, snapshot=None, summary="", time_begin=0, time_end=0)
    assert any(f"{made.name} was made" in fault for fault in fuzzed.faults(failed))


def test_the_fuzzer_notices_an_honest_backup_that_is_not_like_its_source(fuzzed: FuzzedVolume) -> None:
    assert fuzzed.honest_faults() == []
    tree = fuzzed.machine.place.tree(fuzzed.machine.snapshots()[-1])
    # One that nobody told the plan of.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(change_log.ChangeLog, "add_line", lambda _changes, _line: None)
        fuzzed.change_source(7)
        faults = fuzzed.honest_faults()
    assert any("diary" in fault for fault in faults)
    assert tree.is_dir()


# --- what it found


@pytest.mark.parametrize("path", [b"..", b"../beside", b"directory/../../beside", b"/beside", b"", b"a//b"])
def test_m9_no_path_of_a_plan_leads_an_assembly_out_of_its_tree(tmp_path: Path, path: bytes) -> None:
    """A machine can have rsync print that anything was deleted (MSG_DELETED): it makes that line itself, mark and all."""
    for name in ("staging", "tree/directory", "beside"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("kept")
    before = fingerprint(tmp_path)
    for kind in ChangeKind:
        with pytest.raises(IncrementalFailed):
            assembly.apply(tmp_path / "staging", tmp_path / "tree", [Change(path, kind)], lambda _path: None)
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("path", [b"../../other", b"../../other.snapshots", b"..", b"/tmp"])
def test_m9_a_message_about_something_deleted_elsewhere_deletes_nothing(fuzzed: FuzzedVolume, path: bytes) -> None:
    fuzzed.change_source(1)
    with MutatingRelay(
        fuzzed.machine.daemon.port, lambda _number: Plan(random.Random(1), hangs_up=False, said=framed(DELETED, path))
    ) as relay:
        outcome = fuzzed.session(relay.port)
    assert outcome.success, outcome.summary
    assert fuzzed.faults(outcome) == []
    assert fuzzed.honest_faults() == []


@pytest.fixture
def on_tmpfs(tmp_path: Path) -> Iterator[BackedUpMachine]:
    """A machine whose volume keeps times of any year, as btrfs does too."""
    if not TMPFS.is_dir():
        pytest.skip("no file system in memory")
    with tempfile.TemporaryDirectory(dir=TMPFS) as volume, backed_up_machine(tmp_path, volume=Path(volume)) as machine:
        yield machine


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 2**63 - 1])
def test_m9_a_time_that_the_catalog_cannot_hold_fails_no_backup(on_tmpfs: BackedUpMachine, seconds: int) -> None:
    machine = on_tmpfs
    for entries in ([Entry(b"old"), Entry(b"file", mtime=seconds)], [Entry(b"old"), Entry(b"other", mtime=seconds)]):
        with MaliciousRsyncServer(entries) as server:
            machine.daemon.port = server.port
            outcome = machine.back_up(**SPOKEN)
        assert outcome.success, outcome.summary
    catalog_oracle.assert_agrees(machine)
    # With the checksums of the backups, and with those that verification takes down itself.
    for _again in range(2):
        made = scrub.verify(machine.place, zone=machine.storage.state.timezone, share=ScrubShare(), pace=RateLimiter())
        assert made.damages == []
        catalog.rebuild(machine.place, zone=machine.storage.state.timezone)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_m9_a_run_that_is_ended_while_it_says_much_leaves_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chatters = 'while :; do printf "%s\\n" a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a; done'
    with backed_up_machine(tmp_path, max_run_seconds=1, allow_old_rsync=True) as machine:
        outcome = machine.with_rsync("sh", "-c", chatters).back_up()
    assert "max_run_seconds" in outcome.summary
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
