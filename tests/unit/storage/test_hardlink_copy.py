"""A tree by hard links is whole, with directories as they were, whichever of several threads made them, or it is an
error."""

import errno
import os
import threading
from pathlib import Path

import pytest
from tests.support.backed_up_machine import fingerprint
from tests.support.rich_tree import make_rich_tree

from turku.storage.fs import hardlink_copy
from turku.storage.fs.hardlink_copy import CopyStopped, link_tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Wide and deep, so that every thread has something to do."""
    source = tmp_path / "source"
    for number in range(60):
        directory = source / f"{number % 7}/{number}/inner"
        directory.mkdir(parents=True)
        for name in range(20):
            (directory / f"file {name}").write_text(f"{number} {name}")
    (source / "rich").mkdir()
    make_rich_tree(source / "rich")
    # Made by nobody who could enter it, were that its mode from the beginning.
    (source / "closed/inside").mkdir(parents=True)
    (source / "closed/inside/file").write_text("inside")
    for path in (source / "closed/inside", source / "closed"):
        path.chmod(0o500 if os.geteuid() else 0)
    return source


def test_everything_is_there_and_as_it_was(source: Path, tmp_path: Path) -> None:
    link_tree(source, tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == fingerprint(source)
    for path in ("0/0/inner/file 3", "closed/inside/file"):
        assert (tmp_path / "copy" / path).stat().st_ino == (source / path).stat().st_ino


def test_several_threads_take_part(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1, 2})
    together = threading.Barrier(3, timeout=30)
    waited: set[str] = set()
    original = os.link

    def link(*arguments: object, **options: object) -> None:
        name = str(threading.get_ident())
        if name not in waited:
            waited.add(name)
            together.wait()
        original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link)
    link_tree(source, tmp_path / "copy")
    assert len(waited) == 3
    assert fingerprint(tmp_path / "copy") == fingerprint(source)


def test_one_that_fails_ends_all(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.link

    def link(name: bytes, *arguments: object, **options: object) -> None:
        if name == b"file 7":
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        original(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="Input/output error"):
        link_tree(source, tmp_path / "copy")
    assert not [thread for thread in threading.enumerate() if thread.name == "hard links"]


def test_the_callback_gets_the_number_of_directories_and_can_end_it(source: Path, tmp_path: Path) -> None:
    counts: list[int] = []

    def go_on(directories: int) -> bool:
        counts.append(directories)
        return True

    link_tree(source, tmp_path / "copy", go_on)
    assert counts == sorted(counts)
    assert counts[-1] == sum(1 for _ in os.walk(source))
    assert len(counts) > 5
    with pytest.raises(CopyStopped):
        link_tree(source, tmp_path / "another", lambda directories: directories < 20)


def test_the_callback_may_fail(source: Path, tmp_path: Path) -> None:
    def fail(_directories: int) -> bool:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        link_tree(source, tmp_path / "copy", fail)


def test_there_is_a_limit_to_the_threads(monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(1000)))
    most = 0

    def go_on(_directories: int) -> bool:
        nonlocal most
        most = max(most, sum(thread.name == "hard links" for thread in threading.enumerate()))
        return True

    link_tree(source, tmp_path / "copy", go_on)
    assert 1 <= most <= hardlink_copy._THREADS_LIMIT
