"""The excludes, the bandwidth limit and the other options of sources, all in one ping of one machine."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet
from tests.support.recorder import Recorder
from tests.support.trees import listing, snapshot_differences

from turku.demo.private_machine import PrivateMachine

pytestmark = pytest.mark.xdist_group("system-rules")

BANDWIDTH_KIB = 512


@dataclass
class Rules:
    fleet: Fleet
    machine: PrivateMachine
    tree: Path
    recorder: Recorder

    def kept(self, source: str) -> set[str]:
        [snapshot] = self.fleet.snapshots(self.machine, source)
        return listing(snapshot)

    def rsync_of(self, source: str) -> list[str]:
        argv: list[str]
        [argv] = [
            call["argv"] for call in self.recorder.calls("rsync") if any(f"/{source}/" in word for word in call["argv"])
        ]
        return argv


@pytest.fixture(scope="module")
def rules(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Rules:
    directory = tmp_path_factory.mktemp("rules")
    tree = directory / "tree"
    for name in ("keep.txt", "drop.tmp", "cache/keep.txt", "cache/drop.tmp", "logs/a.log", "logs/b.log", "logs/c.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    linked = directory / "linked"
    linked.mkdir()
    (linked / "one").write_text("one file, two names\n")
    os.link(linked / "one", linked / "two")
    large = directory / "large"
    large.mkdir()
    (large / "random").write_bytes(os.urandom(BANDWIDTH_KIB * 1024))
    recorder = Recorder(directory / "notes")
    fleet.add_filter_set("no-logs", ["- *.log", "merge no-temporary"])
    fleet.add_filter_set("no-temporary", ["- *.tmp"])
    storage = fleet.storage("rules", rsync_command=recorder.rsync_command, sandbox="off")
    sources: dict[str, dict[str, Any]] = {
        "all": {"path": str(tree)},
        "excluded": {"path": str(tree), "exclude": ["*.tmp", "/cache"]},
        "filtered": {"path": str(tree), "filter": ["+ /logs/a.log", "- *.log"]},
        "merged": {"path": str(tree), "filter": ["+ /logs/b.log", "merge no-logs"]},
        "linked": {"path": str(linked), "preserve_hard_links": True},
        "not-linked": {"path": str(linked), "not_preserved": ["hard_links"]},
        "limited": {"path": str(large), "bwlimit": BANDWIDTH_KIB},
        "in-place": {"path": str(tree), "snapshot_mode": "none"},
        "rotating": {"path": str(tree), "large_rotating_files": True},
        "modifying": {"path": str(tree), "large_modifying_files": True, "snapshot_mode": "link-dest"},
        "verbatim": {"path": str(tree), "an_option_of_tomorrow": {"nested": [1, 2]}, "shared_service": True},
    }
    machine = fleet.machine("rules-machine", sources, storage=storage)
    machine.ping()
    return Rules(fleet, machine, tree, recorder)


def test_without_rules_everything_is_kept(rules: Rules) -> None:
    assert rules.kept("all") == listing(rules.tree)


def test_excluded_files_are_left_out(rules: Rules) -> None:
    assert rules.kept("excluded") == {"keep.txt", "logs", "logs/a.log", "logs/b.log", "logs/c.txt"}


def test_filter_rules_hold_in_their_order(rules: Rules) -> None:
    assert rules.kept("filtered") == listing(rules.tree) - {"logs/b.log"}


def test_a_merged_filter_set_stands_in_its_rules_place_with_the_sets_it_names(rules: Rules) -> None:
    assert rules.kept("merged") == listing(rules.tree) - {"logs/a.log", "drop.tmp", "cache/drop.tmp"}


def test_hard_links_are_kept_unless_the_source_leaves_them_out(rules: Rules) -> None:
    [linked] = rules.fleet.snapshots(rules.machine, "linked")
    [apart] = rules.fleet.snapshots(rules.machine, "not-linked")
    assert (linked / "one").samefile(linked / "two")
    assert not (apart / "one").samefile(apart / "two")


def test_the_bandwidth_limit_reaches_rsync_and_slows_it(rules: Rules) -> None:
    argv = " ".join(rules.rsync_of("limited"))
    assert f"--bwlimit={BANDWIDTH_KIB}" in argv.replace("--bwlimit ", "--bwlimit=")
    assert "--bwlimit" not in " ".join(rules.rsync_of("all"))


@pytest.mark.parametrize("source", ["in-place", "rotating"])
def test_mode_none_keeps_the_working_tree_and_no_history(rules: Rules, source: str) -> None:
    working_tree = rules.fleet.storage_of(rules.machine).machine_directory(rules.machine.uuid) / source
    assert snapshot_differences(rules.tree, working_tree) == []
    assert rules.fleet.snapshots(rules.machine, source) == []
    [run] = rules.fleet.runs(rules.machine, source)
    assert run["success"]


def test_a_source_that_names_its_mode_gets_it_in_spite_of_large_files(rules: Rules) -> None:
    assert rules.kept("modifying") == listing(rules.tree)


def test_an_option_that_nobody_knows_is_passed_on_and_harmless(rules: Rules) -> None:
    assert rules.kept("verbatim") == listing(rules.tree)
    [(options,)] = rules.fleet.query("SELECT other_options FROM backups_source WHERE name = 'verbatim'")
    assert '"an_option_of_tomorrow"' in options


def test_no_password_is_in_an_argument_of_rsync(rules: Rules) -> None:
    calls = [call for call in rules.recorder.calls("rsync") if any("rsync://" in word for word in call["argv"])]
    assert len(calls) == 11
    for call in calls:
        password = call["environment"].get("RSYNC_PASSWORD")
        if password:
            assert password not in " ".join(call["argv"])
