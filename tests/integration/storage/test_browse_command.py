"""``turku-storage snapshots``, ``ls``, ``versions``, ``find``, ``diff`` and ``catalog`` as an operator types them."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import xxhash
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.errors import InvalidValue, NotInHistory, TurkuError, UsageError
from turku.storage import cli
from turku.storage.catalog import database

Run = Callable[..., str]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    """Three days of a machine: a file that is written, changed, and removed again, beside names of other kinds."""
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume", timezone="UTC") as machine:
        (machine.source_dir / "directory").mkdir()
        (machine.source_dir / "directory" / "kept").write_text("kept")
        with open(bytes(machine.source_dir) + b"/not\xffutf-8", "wb"):
            pass
        for day in range(3):
            if day < 2:
                (machine.source_dir / "lost").write_text("x" * (day + 1))
            else:
                (machine.source_dir / "lost").unlink()
            assert machine.back_up().success
            machine.clock.moment += timedelta(days=1)
        yield machine


@pytest.fixture
def run(machine: BackedUpMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> str:
        umask = os.umask(0o022)
        try:
            return _run(*arguments)
        finally:
            # The program's own would stay with all tests after it.
            os.umask(umask)

    def _run(*arguments: str) -> str:
        assert cli.main([*arguments, "-c", str(tmp_path / "storage")]) == 0
        return capsys.readouterr().out

    return run


def rows(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text)
    return found


def test_snapshots(machine: BackedUpMachine, run: Run) -> None:
    uuid = machine.machine_dir.name
    found = rows(run("snapshots", "--json"))
    assert [row["snapshot"] for row in found] == machine.snapshots()
    assert {(row["machine"], row["source"]) for row in found} == {(uuid, "etc")}
    assert found == rows(run("snapshots", "etc", "--machine", uuid, "--json"))
    assert machine.snapshots()[0] in run("snapshots", "etc")


def test_a_terminal_gets_names_of_machines_and_no_column_that_an_option_fixes(
    machine: BackedUpMachine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert f"\n{machine.machine_dir.name[:8]}  etc " in run("snapshots")
    machine.storage.state.machines_dir.mkdir(parents=True, exist_ok=True)
    (machine.storage.state.machines_dir / "shop-web-1").symlink_to(machine.machine_dir.name)
    for command in (["snapshots"], ["retention", "--dry-run"]):
        assert "\nshop-web-1  etc" in run(*command)
    for command in (["snapshots", "etc"], ["retention", "--dry-run", "--source", "etc"]):
        text = run(*command, "--machine", "web-1")
        assert "web-1" not in text
        assert re.search("^(\x1b.1m)?snapshot .*\n(\x1b.0m)?etc_2026", text), text
        assert "no room" not in text
    assert "  2026-01-31 12:01:00  " in run("snapshots", "etc", "--machine", "web-1")


def test_files(machine: BackedUpMachine, run: Run) -> None:
    first, second, third = machine.snapshots()
    names = [row["path"] for row in rows(run("ls", "etc", "--json"))]
    assert names == ["directory", {"b64": "bm90/3V0Zi04"}]
    assert [row["path"] for row in rows(run("ls", f"etc@{second}", "--json"))][1] == "lost"
    assert [row["path"] for row in rows(run("ls", "etc@2026-02-01", "--json"))][1] == "lost"
    # A part of a name counts as one, although it would be a time too.
    part = first.removeprefix("etc_")[:15]
    assert run("ls", f"etc@{part}") == run("ls", f"etc@{first}") != run("ls", f"etc@{second}")
    with pytest.raises(NotInHistory, match="3 snapshots fit etc_2026: etc_2026"):
        run("ls", "etc@etc_2026")
    at = rows(run("ls", "etc", "lost", "--at", "2026-01-31 23:00", "--json"))
    assert [(row["size_bytes"], row["first"], row["last"]) for row in at] == [(1, first, first)]
    assert [row["path"] for row in rows(run("ls", "etc", "directory/", "--json"))] == ["directory/kept"]
    everything = rows(run("ls", f"etc@{third}", "--recursive", "--json"))
    assert [row["path"] for row in everything] == ["directory", {"b64": "bm90/3V0Zi04"}, "directory/kept"]
    text = run("ls", "etc")
    assert "$'not\\377utf-8'" in text
    assert text.startswith("drwx")


def test_history(machine: BackedUpMachine, run: Run) -> None:
    first, second, _third = machine.snapshots()
    found = rows(run("versions", "etc", "lost", "--json"))
    assert [(row["size_bytes"], row["first"], row["last"]) for row in found] == [(1, first, first), (2, second, second)]
    assert found[1]["checksum"] == xxhash.xxh128(b"xx").hexdigest()
    assert found[1]["checksum"] in run("versions", "etc", "lost")


def test_find(machine: BackedUpMachine, run: Run) -> None:
    _first, second, third = machine.snapshots()
    [row] = rows(run("find", "etc", "LOST", "-i", "--json"))
    assert (row["path"], row["size_bytes"], row["last"]) == ("lost", 2, second)
    assert rows(run("find", f"etc@{third}", "lost", "--json")) == []
    assert [row["path"] for row in rows(run("find", "etc", "*/k*t", "--json"))] == ["directory/kept"]


def test_diff(machine: BackedUpMachine, run: Run) -> None:
    first, second, third = machine.snapshots()
    assert [(row["change"], row["path"]) for row in rows(run("diff", "etc", first, "--json"))] == [("removed", "lost")]
    [row] = rows(run("diff", "etc", first, second, "--json"))
    assert (row["change"], row["before"]["size_bytes"], row["after"]["size_bytes"]) == ("changed", 1, 2)
    assert [row["change"] for row in rows(run("diff", "etc", third, second, "--json"))] == ["added"]
    assert run("diff", "etc", "2026-01-31", "latest") == "-\t1 B\t\t\tlost\n"
    assert run("diff", "etc", first, second) == "~\t1 B\t2 B\tcontent, time\tlost\n"
    assert run("diff", "etc", third, "--json") == "[]\n"


def test_changed_attributes_are_named(machine: BackedUpMachine, run: Run) -> None:
    # What a run keeps of attributes is not asked here: a tree gets some, and the catalog reads it.
    *_former, third = machine.snapshots()
    file = machine.source_dir / "directory" / "kept"
    file.chmod(0o600)
    os.chown(file, 5, 5)
    os.utime(file, ns=(0, 15_000_000_000_123_456_789))
    assert machine.back_up().success
    newest = machine.snapshots()[-1]
    os.setxattr(machine.place.tree(newest) / "directory" / "kept", "user.comment", b"a note")
    database.file_of(machine.place).unlink()
    assert run("diff", "etc", third, newest) == "~\t4 B\t4 B\tmode, owner, time, attributes\tdirectory/kept\n"
    [row] = rows(run("diff", "etc", third, newest, "--json"))
    assert row["what_changed"] == ["mode", "owner", "time", "attributes"]
    assert row["before"]["attributes"] == ""
    assert row["after"]["mtime_ns"] == 15_000_000_000_123_456_789
    versions = run("versions", "etc", "directory/kept").splitlines()
    assert "2445-05-01 02:40:00" in versions[-1]
    assert row["after"]["attributes"] in versions[-1]
    assert len(row["after"]["attributes"]) == 32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["ls", "nowhere"], NotInHistory, "there is no history of source nowhere"),
        (["ls", "etc@never"], NotInHistory, "neither a snapshot of etc nor a time"),
        (["ls", "etc", "missing"], NotInHistory, "missing is not in"),
        (["ls", "etc", "../other"], TurkuError, "'..'"),
        (["versions", "etc", "missing"], NotInHistory, "missing was in no snapshot"),
        (["versions", "etc", "."], InvalidValue, "no versions"),
        (["find", "etc", ""], InvalidValue, "pattern is empty"),
        (["diff", "etc", "2020-01-01"], NotInHistory, "no snapshot was made before"),
        (["snapshots", "etc", "--machine", "nobody"], NotInHistory, "nobody is not a machine"),
    ],
)
def test_arguments_that_name_nothing_are_an_error(
    run: Run, arguments: list[str], error: type[TurkuError], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(*arguments)


def test_two_machines_with_one_source_name_are_told_apart(machine: BackedUpMachine, run: Run) -> None:
    other = machine.machine_dir.with_name("11111111-1111-4111-8111-111111111111")
    shutil.copytree(machine.machine_dir, other, symlinks=True)
    with pytest.raises(UsageError, match="2 machines have a source etc") as caught:
        run("ls", "etc")
    assert other.name in caught.value.message
    assert machine.machine_dir.name in caught.value.message
    assert run("ls", "etc", "--machine", other.name) == run("ls", "etc", "--machine", machine.machine_dir.name)


def test_a_catalog_is_updated_and_rebuilt(machine: BackedUpMachine, run: Run) -> None:
    before = rows(run("versions", "etc", "lost", "--json"))
    assert "etc: 3 snapshots" in run("catalog", "rebuild", "--source", "etc")
    after = rows(run("versions", "etc", "lost", "--json"))
    assert [row["checksum"] for row in after] == [None, None]
    assert [{**row, "checksum": None} for row in before] == after
    database.file_of(machine.place).unlink()
    assert "etc: 3 snapshots" in run("catalog", "update")
    assert rows(run("versions", "etc", "lost", "--json")) == after


def test_the_timer_reads_what_no_backup_had_the_time_to_read(machine: BackedUpMachine, run: Run) -> None:
    database.file_of(machine.place).unlink()
    run("gc", "--background")
    assert database.file_of(machine.place).exists()
    assert len(rows(run("versions", "etc", "lost", "--json"))) == 2
