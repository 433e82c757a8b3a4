"""M3: filter rules and excludes decide on names only: what reads files on the storage is refused, twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.coordinator import Coordinator
from tests.support.http_cast import HttpCast
from tests.support.ordered_storage import order, ordered_storage
from tests.support.v1_client import Refused

pytestmark = pytest.mark.storage_rsync

HOSTILE_RULES = {
    "merge file": ". /etc/shadow",
    "merge file, long": "merge /etc/shadow",
    "merge file, with an underscore": "merge_/etc/shadow",
    "merge file, modifiers": ".- /etc/shadow",
    "merge file, no prefixes": "merge,- /etc/shadow",
    "merge file, words": ".w /etc/shadow",
    "merge standard input": ". -",
    "per directory": ": .rules",
    "per directory, long": "dir-merge .rules",
    "per directory, modifiers": "dir-merge,en- .rules",
    "per directory, underscore": "dir-merge_.rules",
    "clear": "!",
    "clear, long": "clear",
    "CVS ignores": "-C",
    "CVS ignores, merged": ":C",
    "CVS ignores, long": "exclude,C",
    "a line break": "- a\n. /etc/shadow",
    "a carriage return": "- a\r. /etc/shadow",
    "NUL": "- a\0b",
    "another option": "--rsh=id",
    "nothing": "",
    "no pattern": "- ",
    "no prefix": "*.tmp",
    "unknown modifier": "-w *.tmp",
    "sides on a sided rule": "Hs x",
    "as long as rsync drops": "- " + "x" * 4096,
}
HOSTILE_EXCLUDES = {
    "clear": "!",
    "a line break": "a\n+ /etc",
    "a carriage return": "a\rb",
    "NUL": "a\0b",
    "nothing": "",
    "as long as rsync drops": "x" * 4096,
}
LAWFUL_RULES = ["+ /keep/", "+ /keep/***", "-! */", "-/p *.bak", "H hidden", "exclude *.swp", "P lost+found/"]


def hostile(option: str, text: str) -> dict[str, Any]:
    return {"etc": {"path": "/etc", option: [text]}}


def refuse(cast: HttpCast, option: str, text: str) -> None:
    before = cast.source_rows()
    with pytest.raises(Refused) as refused:
        cast.alice.update_config(hostile(option, text))
    assert refused.value.status == 400
    assert "machine.sources" in refused.value.sentence
    assert cast.source_rows() == before


@pytest.fixture(scope="module")
def cast(coordinator: Coordinator) -> HttpCast:
    """One for all: what is refused leaves her as she was."""
    return HttpCast.introduce(coordinator)


@pytest.mark.parametrize("text", HOSTILE_RULES.values(), ids=HOSTILE_RULES)
def test_m3_the_coordinator_refuses_the_rule(cast: HttpCast, text: str) -> None:
    refuse(cast, "filter", text)


@pytest.mark.parametrize("text", HOSTILE_EXCLUDES.values(), ids=HOSTILE_EXCLUDES)
def test_m3_the_coordinator_refuses_the_exclude(cast: HttpCast, text: str) -> None:
    refuse(cast, "exclude", text)


def test_m3_lawful_rules_reach_the_storage(cast: HttpCast) -> None:
    cast.alice.update_config({"etc": {"path": "/etc", "filter": LAWFUL_RULES, "exclude": ["*.log", "+ x", "- y"]}})
    ordered = cast.bob.due(cast.alice.uuid)["etc"]
    assert ordered["exclude"] == ["*.log", "+ x", "- y"]
    assert len(ordered["filter"]) == len(LAWFUL_RULES)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path) as machine:
        (machine.source_dir / ".rules").write_text("- *\n")
        (machine.source_dir / ".cvsignore").write_text("file\n")
        for name in ("file", "file.tmp", "file.log"):
            (machine.source_dir / name).write_text(name)
        yield machine


@pytest.mark.parametrize(
    ("option", "text"),
    [
        *(("filter", text) for text in HOSTILE_RULES.values()),
        *(("exclude", text) for text in HOSTILE_EXCLUDES.values()),
    ],
    ids=[*HOSTILE_RULES, *(f"exclude, {name}" for name in HOSTILE_EXCLUDES)],
)
def test_m3_the_storage_starts_no_rsync_with_the_rule(machine: BackedUpMachine, option: str, text: str) -> None:
    outcome = machine.back_up(**{option: [text]})
    assert not outcome.success
    assert outcome.summary.startswith(f"{option}: ")
    assert machine.snapshots() == []


def test_m3_the_storage_obeys_lawful_rules(machine: BackedUpMachine) -> None:
    outcome = machine.back_up(filter=["- *.tmp", "H hidden"], exclude=["*.log"])
    assert outcome.success, outcome.summary
    tree = machine.newest_tree()
    assert {entry.name for entry in tree.iterdir()} == {"file", ".rules", ".cvsignore"}


def test_m3_a_file_of_the_storage_says_nothing_through_a_hostile_coordinator(tmp_path: Path) -> None:
    """As in the existing system: what a merge file holds shows in rsync's complaint or in what is left out."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    secret = tmp_path / "secret"
    secret.write_text("- file\nroot:HASH-OF-A-PASSWORD\n")
    with ordered_storage(tmp_path, {"reader": source, "good": source}) as storage:
        storage.admit()
        output = storage.session({"reader": order(filter=[f". {secret}"]), "good": order()})
        assert "HASH-OF-A-PASSWORD" not in output + storage.host.log + str(storage.reports)
        assert not storage.reports["reader"]["success"]
        assert storage.reports["reader"]["summary"].startswith("filter: ")
        assert storage.reports["good"]["success"]
