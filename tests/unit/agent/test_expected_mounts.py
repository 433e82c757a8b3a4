"""A source with ``expects_mount`` is offered only while a file system is mounted at its path."""

import logging
from pathlib import Path

import pytest

from turku.agent import registration
from turku.agent.capture import excluded_paths
from turku.agent.config.model import SourceConfig


def source(path: Path | str, **options: object) -> SourceConfig:
    return SourceConfig("data", str(path), {"path": str(path), **options})


def test_a_mount_point_is_offered_also_by_way_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    offered = [source("/proc", expects_mount=True), source(tmp_path / "link", expects_mount=True)]
    assert excluded_paths.missing_mounts(offered) == {}


def test_an_empty_mount_point_is_not_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = SourceConfig("other", str(tmp_path), {})
    found = excluded_paths.missing_mounts([source(tmp_path, expects_mount=True), other])
    assert found == {"data": f"nothing is mounted at {tmp_path}, although it should be a mount point (expects_mount)"}
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "source data is not offered" in record.getMessage()
    assert excluded_paths.is_mount_missing(source(tmp_path / "nothing", expects_mount=True))
    assert not excluded_paths.is_mount_missing(source(tmp_path, expects_mount=False))


def test_the_check_warns_of_it(tmp_path: Path) -> None:
    texts = [remark.text for remark in registration.source_warnings(source(tmp_path, expects_mount=True))]
    assert texts == ["nothing is mounted there now, so that it would not be backed up"]
    [remark] = registration.source_warnings(source("/proc", expects_mount="yes"))
    assert remark.is_problem
    assert remark.text == "expects_mount: must be true or false"
