"""The harness of `make test-faults` itself: it notices what it is there to notice, and finds nothing where all is well."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.injected_faults import Stage, inject, stage
from tests.support.markdown import REPOSITORY
from tests.support.trees import flip_bit

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of its own")]


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path, "link-dest", "1") as made:
        yield made


@pytest.mark.parametrize("kind", ["kill the session", "power loss", "lost disk", "full disk", "failing system call"])
def test_a_fault_of_each_kind_harms_nothing(played: Stage, kind: str) -> None:
    inject(played, 0, kind)
    assert played.findings == []


def test_a_changed_a_lost_and_a_half_removed_snapshot_are_found(played: Stage) -> None:
    oldest, newest = played.snapshots()[0], played.snapshots()[-1]
    path = next(each for each in played.place.tree(oldest).rglob("f*") if each.is_file() and each.stat().st_size)
    flip_bit(path, 0, 1)
    played.check()
    assert played.findings
    assert all("has changed" in each.text for each in played.findings)
    played.findings.clear()
    shutil.rmtree(played.place.snapshot(newest))
    (played.place.snapshots_dir / ".staging-of-old").mkdir()
    played.check()
    played.go_on()
    texts = " ".join(each.text for each in played.findings)
    assert f"snapshot {newest} is gone" in texts
    assert "left over: ['.staging-of-old']" in texts
    assert "verify finds damage" in texts


def test_the_report_counts_by_kind_and_names_what_repeats_it() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bench.faults", "--faults", "2", "--stage", "link-dest", "--only", "kill verify"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "kill verify     2" in ended.stdout
    assert "2 faults in" in ended.stdout
    assert "--seed 20261129" in ended.stdout
