"""A source that changed little: only the differences are transferred, and the snapshot is as exact as any other."""

import os
import random
import shutil
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, fingerprint
from tests.support.rich_tree import change_rich_tree, make_rich_tree

from turku.core.configuration.declaration import with_values
from turku.storage.snapshots import MODES, SnapshotMode

pytestmark = pytest.mark.both_rsyncs

MANY = 400
NAMES = [
    b"new\nline", b"back\\slash", b"\\#012", b"\\#999", b"\\#134#012", b"-rf", b"--delete", b" two  blanks ", b"#hash",
    b";semicolon", b"\xff\xfe", b"caf\xe9", b"tab\there", b"return\r", b"\x7f", b"w[il]d*?", b"**", b"./".strip(b"/") + b"x",
    b"...", b"a|b", b":>f+++++++++|", b"*deleting", b"!", b"+ plus", b"'\"$(x)`", b"x" * 255, "sn\u00f6".encode(),
]  # fmt: skip


@pytest.fixture
def mode() -> type[SnapshotMode]:
    return MODES["link-dest"]


@pytest.fixture
def big(machine: BackedUpMachine) -> BackedUpMachine:
    """With so many files that one or two more are few, and a first snapshot."""
    for number in range(MANY):
        path = machine.source_dir / f"{number % 20}" / f"{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}")
    make_rich_tree(machine.source_dir)
    return machine


def assert_differences_were_transferred(machine: BackedUpMachine, caplog: pytest.LogCaptureFixture) -> None:
    """And nothing else: all other files are those of the snapshot before."""
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert outcome.strategy in ("incremental", "unchanged"), outcome.strategy_reason
    assert machine.differences(machine.newest_tree(), "--no-H") == []
    hidden = [name for name in os.listdir(machine.place.snapshots_dir) if name.startswith(".")]
    assert [name for name in hidden if name != machine.place.retention_rules.name] == []
    assert not machine.place.working_tree.exists()


@pytest.mark.parametrize("fake_super", [None, True])
def test_every_kind_of_change_arrives(
    big: BackedUpMachine, spied: Path, caplog: pytest.LogCaptureFixture, fake_super: bool | None
) -> None:
    caplog.set_level("INFO")
    big.storage = with_values(big.storage, fake_super=fake_super)
    source = big.source_dir
    assert big.back_up().success
    before = fingerprint(big.newest_tree())
    change_rich_tree(source)
    (source / "dangling" / "inside").write_text("inside")
    shutil.rmtree(source / "7")
    (source / "7").write_text("a file where a directory was")
    (source / "8" / "8").unlink()
    (source / "8" / "8").mkdir()
    (source / "8" / "8" / "deep").mkdir(mode=0o500)
    (source / "9" / "9").unlink()
    os.utime(source / "9", ns=(1_000_000_000_000_000_007, 1_000_000_000_000_000_007))
    (source / "10").chmod(0o711)
    source.chmod(0o751)
    assert_differences_were_transferred(big, caplog)
    assert "--files-from" in spied.read_text()
    shared = big.place.snapshot(big.snapshots()[0]) / "11" / "11"
    assert shared.samefile(big.newest_tree() / "11" / "11")
    assert not (big.newest_tree() / "secret").samefile(big.place.snapshot(big.snapshots()[0]) / "secret")
    assert fingerprint(big.place.snapshot(big.snapshots()[0])) == before


def test_names_are_bytes(big: BackedUpMachine, spied: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    top = os.fsencode(big.source_dir)
    places = [top, top + b"/d\n\\#012", top + b"/- d"]
    for place in places:
        os.makedirs(place, exist_ok=True)
        for name in NAMES[::2]:
            Path(os.fsdecode(place + b"/" + name)).write_text("one")
    assert big.back_up().success
    before = fingerprint(big.newest_tree())
    for place in places:
        for number, name in enumerate(NAMES):
            path = Path(os.fsdecode(place + b"/" + name))
            if number % 4 == 0:
                path.unlink()
            else:
                path.write_text("another")
    assert_differences_were_transferred(big, caplog)
    assert "--files-from" in spied.read_text()
    assert fingerprint(big.place.snapshot(big.snapshots()[0])) == before


@pytest.mark.parametrize("what", ["deleted in the source's own directory", "the mode of the source's own directory"])
def test_the_sources_own_directory(
    big: BackedUpMachine, what: str, spied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert big.back_up().success
    if what.startswith("deleted"):
        (big.source_dir / "file").unlink()
    else:
        big.source_dir.chmod(0o700)
    assert_differences_were_transferred(big, caplog)
    assert "--files-from" in spied.read_text()


def test_random_changes_again_and_again(big: BackedUpMachine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    chance = random.Random(4)
    assert big.back_up().success
    kept = {big.snapshots()[0]: fingerprint(big.newest_tree())}
    for _ in range(8):
        for _ in range(chance.randrange(1, 12)):
            change_something(big.source_dir, chance)
        assert_differences_were_transferred(big, caplog)
        kept[big.snapshots()[-1]] = fingerprint(big.newest_tree())
        assert all(fingerprint(big.place.tree(name)) == seen for name, seen in kept.items())


def change_something(source: Path, chance: random.Random) -> None:
    path = source / str(chance.randrange(25)) / str(chance.randrange(60))
    kind = chance.randrange(6)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.parent.is_dir() and os.path.lexists(path):
        path.unlink()
    if kind == 0 or not path.parent.is_dir():
        return
    if kind == 1:
        path.mkdir()
        (path / "inner").write_text("inner")
    elif kind == 2:
        path.symlink_to("x" * chance.randrange(1, 9))
    elif kind == 3:
        shutil.rmtree(path.parent)
    elif kind == 4:
        path.parent.chmod(chance.choice((0o700, 0o755, 0o711)))
    else:
        path.write_text(str(chance.random()))


BETWEEN = {
    "an unlisted file is rewritten": 'echo evil > "$s/3/3"; chmod 777 "$s/4/4"; chown 5:5 "$s/5/5"; touch -d 2001-01-01 "$s/6/6"',
    "a listed one is gone": 'rm "$s/file"',
    "its directory is gone": 'rm -r "$s/directory"',
    "a directory became a file": 'rm -r "$s/directory"; echo x > "$s/directory"',
    "a file became a directory": 'rm "$s/file"; mkdir "$s/file"; echo x > "$s/file/x"',
    "a directory became a link": 'rm -r "$s/directory"; ln -s / "$s/directory"',
    "all is gone": 'rm -r "$s"/*',
    "there is more": 'mkdir "$s/more"; echo x > "$s/more/x"; echo x > "$s/3/more"',
    "it is as it was": 'printf content > "$s/file"; touch -d @1000000000.123456789 "$s/file"',
}


@pytest.mark.parametrize("what", BETWEEN)
def test_the_machine_goes_on_between_the_question_and_the_transfer(big: BackedUpMachine, what: str) -> None:
    source = big.source_dir
    assert big.back_up().success
    before = fingerprint(big.newest_tree())
    (source / "file").write_text("changed")
    (source / "directory" / "same file").write_text("changed")
    (source / "12" / "12").write_text("changed")
    script = f's={source}; case "$*" in *--files-from*) {BETWEEN[what]};; esac; exec "$0" "$@"'
    outcome = big.with_rsync("sh", "-c", script, "rsync").back_up()
    assert outcome.success, outcome.summary
    tree = big.newest_tree()
    assert fingerprint(big.place.snapshot(big.snapshots()[0])) == before
    if what != "all is gone":
        assert (tree / "12" / "12").read_text() == "changed"
    if what == "its directory is gone":
        # Nobody said what became of it: it is as it was, but for what was asked for and is not there.
        former = big.place.snapshot(big.snapshots()[0]) / "directory"
        assert not (tree / "directory" / "same file").exists()
        assert (tree / "directory").stat().st_mtime_ns == former.stat().st_mtime_ns
        assert (tree / "directory" / "deep").is_dir()
    # A file that was not asked for is as it was. It comes with the next one.
    assert (tree / "3" / "3").read_text() == "3"
    assert big.back_up().success
    assert big.differences(big.newest_tree(), "--no-H") == []
    assert fingerprint(big.place.snapshot(big.snapshots()[0])) == before


def test_many_changes_are_no_reason_to_compare_all_of_it(big: BackedUpMachine) -> None:
    assert big.back_up().success
    for number in range(MANY):
        (big.source_dir / f"{number % 20}" / f"{number}").write_text(f"{number} changed")
    outcome = big.back_up()
    assert outcome.success
    assert (outcome.strategy, outcome.strategy_reason) == ("incremental", "")
    assert big.differences(big.newest_tree(), "--no-H") == []


def test_an_rsync_that_does_not_take_a_list_transfers_all(big: BackedUpMachine) -> None:
    assert big.back_up().success
    (big.source_dir / "file").write_text("changed")
    refusing = 'case "$*" in *--files-from*) exit 4;; esac; exec "$0" "$@"'
    outcome = big.with_rsync("sh", "-c", refusing, "rsync").back_up()
    assert outcome.success
    assert outcome.strategy == "full"
    assert "exit code 4" in outcome.strategy_reason
    first, second = (big.place.snapshot(name) for name in big.snapshots())
    assert (first / "11" / "11").samefile(second / "11" / "11")
    assert big.differences(big.newest_tree(), "--no-H") == []


def test_a_file_that_cannot_be_read_is_no_reason_to_fetch_all(big: BackedUpMachine) -> None:
    assert big.back_up().success
    (big.source_dir / "file").write_text("changed")
    asked = big.source_dir.parent / "asked"
    script = f'echo "$*" >> {asked}; case "$*" in *--files-from*) "$0" "$@"; exit 23;; esac; exec "$0" "$@"'
    outcome = big.with_rsync("sh", "-c", script, "rsync").back_up()
    assert not outcome.success
    assert "exit code 23" in outcome.summary
    # Once more, as the machine may have changed meanwhile, and that is all.
    runs = [
        "--dry-run" in line for line in asked.read_text().splitlines() if "--delete" in line or "files-from" in line
    ]
    assert runs == [True, False, True, False]
    assert big.back_up().success
    assert big.differences(big.newest_tree(), "--no-H") == []


def test_a_directory_that_became_a_file_is_no_reason_to_fetch_all(big: BackedUpMachine) -> None:
    assert big.back_up().success
    shutil.rmtree(big.source_dir / "directory")
    (big.source_dir / "directory").write_text("a file now")
    shutil.rmtree(big.source_dir / "7")
    outcome = big.back_up()
    assert outcome.success
    assert (outcome.strategy, outcome.strategy_reason) == ("incremental", "")
    assert big.differences(big.newest_tree(), "--no-H") == []


def test_stats_are_those_of_the_whole_source(big: BackedUpMachine) -> None:
    from turku.storage.disk import snapshot_notes

    assert big.back_up().success
    first = snapshot_notes.read(big.place, big.snapshots()[-1]).stats
    assert first is not None
    (big.source_dir / "5" / "5").write_text("changed")
    (big.source_dir / "3" / "3.locked").write_text("new")
    (big.source_dir / "4" / "4").unlink()
    outcome = big.back_up()
    second = snapshot_notes.read(big.place, outcome.snapshot or "").stats
    assert second is not None
    assert (second.files_before, second.files, second.created) == (first.files, first.files, 1)
    assert (second.transferred, second.literal_bytes) == (2, len("changed" + "new"))
    assert (second.renamed, second.suffix) == (1, ".locked")
    assert f"Number of files: {outcome.summary.split('Number of files: ')[1].split()[0]}" in outcome.summary
    assert "Literal data: 10 bytes" in outcome.summary
