"""Names of a machine's files in every list that rsync reads: names that begin with '#', have a line break, or are an
option.

A list's line that begins with '#' or ``;`` is a comment to the rsync that storages must have.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import odd_names
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.collected_answers import CollectedAnswers
from tests.support.landed_restore import TEMPORARY_NAME
from tests.support.odd_names import FLAT, LONG, NAMES, content
from tests.support.rsyncd import Rsyncd

from turku.core.secret import Secret
from turku.protocol.messages import SourceCredentials
from turku.protocol.restore_messages import MODULE, FileRestoreRequest, Manifest, RestoreEnd, path_bytes, wire_path
from turku.storage import catalog
from turku.storage.integrity import source_comparison
from turku.storage.integrity.drill import drill
from turku.storage.restore import plan, push
from turku.storage.restore.access_grants import AccessGrant, AccessRequest
from turku.storage.restore.history_view import HistoryView
from turku.storage.rsync.request import RsyncDaemon

OWN = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(
        tmp_path, volume=tmp_path / "storage" / "volume", drill_files=10_000, allow_old_rsync=False
    ) as machine:
        write(machine)
        assert machine.back_up().success
        yield machine


def write(machine: BackedUpMachine, *, version: int = 0, names: tuple[bytes, ...] = NAMES) -> None:
    directory = os.open(machine.source_dir, os.O_RDONLY | os.O_DIRECTORY)
    odd_names.write(directory, names, version=version)
    os.close(directory)


def kept(directory: Path) -> dict[bytes, bytes]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return odd_names.read(descriptor)
    finally:
        os.close(descriptor)


def test_a_backup_fetches_exactly_these(machine: BackedUpMachine) -> None:
    assert kept(machine.newest_tree()) == {name: content(name) for name in NAMES}
    # By a list: what differs from the snapshot before is fetched alone.
    changed = NAMES[::2]
    write(machine, version=1, names=changed)
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert kept(machine.newest_tree()) == {name: content(name, int(name in changed)) for name in NAMES}
    assert machine.differences(machine.newest_tree()) == []


@pytest.mark.parametrize("name", [*FLAT[::9], b"#", b"*", b"\n", b"\\#012", LONG], ids=lambda name: repr(name)[2:42])
def test_a_backup_in_which_one_alone_differs(machine: BackedUpMachine, name: bytes) -> None:
    write(machine, version=1, names=(name,))
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert kept(machine.newest_tree()) == {each: content(each, int(each == name)) for each in NAMES}


def test_files_that_the_machine_removed_are_not_kept(machine: BackedUpMachine) -> None:
    for name in FLAT:
        os.unlink(bytes(machine.source_dir) + b"/" + name)
    assert machine.back_up().success
    assert set(kept(machine.newest_tree())) == set(NAMES) - set(FLAT)


def test_a_drill_restores_each_of_them(machine: BackedUpMachine) -> None:
    made = drill(machine.storage, machine.place)
    assert made.problems == []
    assert (made.files, made.unchecked) == (len(NAMES), 0)


def daemon(machine: BackedUpMachine) -> RsyncDaemon:
    return RsyncDaemon(machine.daemon.port, machine.source, machine.daemon.username, Secret(machine.daemon.password))


def test_a_comparison_with_the_machine_asks_for_each_of_them(machine: BackedUpMachine) -> None:
    machine.days(1)
    snapshot = machine.snapshots()[-1]
    compared = source_comparison.compare(machine.storage, machine.place, daemon(machine), snapshot, share=100.0)
    assert (compared.files, compared.altered) == (len(NAMES), ())
    # As somebody does who sets the times back.
    times = {}
    with catalog.open_catalog(machine.place, zone=machine.storage.state.timezone) as known:
        times = {entry.path: entry.mtime_ns for entry in known.files(snapshot) if entry.kind == "file"}
    altered = tuple(name for name in NAMES if name != LONG)
    write(machine, version=1, names=altered)
    for name in altered:
        os.utime(bytes(machine.source_dir) + b"/" + name, ns=(times[name], times[name]))
    compared = source_comparison.compare(machine.storage, machine.place, daemon(machine), snapshot, share=100.0)
    assert set(compared.altered) == set(altered)
    # As verify --against-source has it done after the next backup.
    source_comparison.request(machine.storage.state, machine.place)
    [finding] = source_comparison.after_backup(machine.storage, machine.place, daemon(machine), snapshot)
    assert f"{len(altered)} of {len(NAMES)} files differ" in finding
    assert "\n" not in finding


def restored(machine: BackedUpMachine, target: Path, paths: tuple[bytes, ...]) -> set[bytes]:
    """Restore these, and return the paths that the agent hears of."""
    view = HistoryView(
        machine.storage, AccessGrant(OWN, "etc", AccessRequest(OWN, "restore", "etc")), clock=machine.clock
    )
    collected = CollectedAnswers()
    (target / TEMPORARY_NAME).mkdir(parents=True)
    request = FileRestoreRequest("etc", TEMPORARY_NAME, paths=[wire_path(path) for path in paths], knows_xxh128=True)
    with (
        Rsyncd(target.with_suffix(".daemon"), {MODULE: target}, read_only=False) as receiving,
        plan.prepared(machine.storage, view, request) as (prepared, answer),
    ):
        # The directories above are the agent's to make.
        for above in answer.parents:
            _make_directory(target, path_bytes(above.path))
        credentials = SourceCredentials(receiving.username, receiving.password)
        push.push(machine.storage, prepared, collected.answers, port=receiving.port, credentials=credentials)
    answers = collected.read()
    end = answers[-1]
    assert isinstance(end, RestoreEnd)
    assert end.rsync_exit_code == 0, end
    entries = [entry for each in answers if isinstance(each, Manifest) for entry in each.entries]
    assert [entry for entry in entries if entry.checksum is None] == []
    return {path_bytes(entry.path) for entry in entries}


def _make_directory(target: Path, path: bytes) -> None:
    directory = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    for part in path.split(b"/"):
        if part not in map(os.fsencode, os.listdir(directory)):
            os.mkdir(part, dir_fd=directory)
        inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)


def test_all_of_them_are_restored(machine: BackedUpMachine, tmp_path: Path) -> None:
    assert restored(machine, tmp_path / "target", ()) == set(NAMES)
    assert kept(tmp_path / "target") == {name: content(name) for name in NAMES}


def test_each_is_restored_by_its_path(machine: BackedUpMachine, tmp_path: Path) -> None:
    assert restored(machine, tmp_path / "target", NAMES) == set(NAMES)
    assert kept(tmp_path / "target") == {name: content(name) for name in NAMES}


@pytest.mark.parametrize(
    "name", [b"*", b"#", b"-rf", b"[x]", b"line\nbreak", b"\\#012", b" leading", b"\xff\xfe", LONG]
)
def test_one_is_restored_without_the_others(machine: BackedUpMachine, tmp_path: Path, name: bytes) -> None:
    assert restored(machine, tmp_path / "target", (name,)) == {name}
    assert kept(tmp_path / "target") == {name: content(name)}


@pytest.mark.parametrize("name", [b"#dir", b"[*?]", b" "])
def test_a_directory_is_restored_by_its_path(machine: BackedUpMachine, tmp_path: Path, name: bytes) -> None:
    below = {each for each in NAMES if each == name or each.startswith(name + b"/")}
    assert restored(machine, tmp_path / "target", (name,)) == below
