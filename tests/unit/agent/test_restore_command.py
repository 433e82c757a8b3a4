"""The questions of a restore before it begins, and its advice on how to go on."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from turku.agent.commands import restore
from turku.agent.config import loading as configuration
from turku.agent.config.model import AgentConfig
from turku.agent.restore.job import PlannedRestore, RestoreJob
from turku.agent.restore.result import RestoreResult
from turku.agent.restore.staging.staging_directory import StagingDirectory
from turku.agent.state import staging_records
from turku.protocol.messages import StorageAddress
from turku.protocol.restore_messages import SnapshotChoice

REMARK = "etc_1 is quarantined, and nobody has reviewed it: 98 % of the files were rewritten"
STORAGE = StorageAddress("primary", "127.0.0.1", [], 22, "turku")


class Terminal(io.StringIO):
    """A person who answers."""

    def isatty(self) -> bool:
        return True


def plan(target: Path, *remarks: str, is_free: bool = True) -> PlannedRestore:
    return PlannedRestore("etc", "etc_1", None, 3, 30, target, is_free, False, remarks)


def options(**words: bool) -> argparse.Namespace:
    return argparse.Namespace(
        unfinished=False,
        **{"yes": False, "in_place": False, "delete": False, "overwrite": "always", "dry_run": False, **words},
    )


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_a_person_is_asked_about_a_quarantined_snapshot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert restore._approve(plan(tmp_path, REMARK), options()) is goes_on
    said = capsys.readouterr().err
    assert f"NOTE: {REMARK}." in said
    assert "all the same?" in said


def test_after_a_no_the_exit_code_says_that_nothing_was_restored(tmp_path: Path) -> None:
    said: list[str] = []
    assert restore._print_result(RestoreResult("cancelled", "etc_1", tmp_path), said.append, "") == 4
    assert said == ["Nothing was restored."]


def test_the_question_names_the_snapshots_time_without_a_fraction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = replace(plan(tmp_path), moment="2026-11-30T12:02:34.582764+00:00")
    assert restore._approve(made, options(yes=True))
    assert "as of 2026-11-30 12:02:34+00:00: 3 files" in capsys.readouterr().err


def test_a_script_gets_a_warning_and_goes_on_where_nothing_can_be_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert restore._approve(plan(tmp_path, REMARK), options())
    assert REMARK in capsys.readouterr().err


def test_of_an_ordinary_snapshot_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    assert restore._approve(plan(tmp_path), options())


@pytest.fixture
def agent(write: Callable[..., Path]) -> AgentConfig:
    return configuration.load(write())


def left(agent: AgentConfig, target: Path, order: RestoreJob, *, has_basis_files: bool) -> None:
    """Leave the files of an interrupted restore."""
    target.mkdir(exist_ok=True)
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    with StagingDirectory.opened(agent, descriptor, target, order.digest("etc_1")) as staging:
        staging.record_basis_files(are_there=has_basis_files)


@pytest.mark.parametrize(
    ("choice", "hint"),
    [
        (SnapshotChoice(), "the same command again with --snapshot etc_1 goes on where this one ended"),
        (SnapshotChoice("etc_1"), "the same command again goes on where this one ended"),
        (
            SnapshotChoice(at="yesterday"),
            "the same command again with --snapshot etc_1 in place of --at goes on where this one ended",
        ),
    ],
)
def test_leftovers_come_with_the_command_to_go_on(
    agent: AgentConfig, tmp_path: Path, choice: SnapshotChoice, hint: str
) -> None:
    order = RestoreJob("etc", STORAGE, tmp_path / "target", snapshot=choice)
    left(agent, tmp_path / "target", order, has_basis_files=False)
    assert restore._next_step(agent.state, order, [plan(tmp_path / "target")]) == hint


def test_nothing_is_promised_where_nothing_of_use_is_left(agent: AgentConfig, tmp_path: Path) -> None:
    target = tmp_path / "target"
    order = RestoreJob("etc", STORAGE, target)
    assert restore._next_step(agent.state, order, []) == ""
    assert restore._next_step(agent.state, order, [plan(target)]) == ""
    left(agent, target, order, has_basis_files=True)
    assert restore._next_step(agent.state, order, [plan(target)]) == "", "basis files: the next run begins anew"
    left(agent, target, order, has_basis_files=False)
    other = RestoreJob("etc", STORAGE, target, paths=(b"ssh",))
    assert restore._next_step(agent.state, other, [plan(target)]) == "", "another restore removes it"
    assert staging_records.is_interrupted(agent.state, target)
