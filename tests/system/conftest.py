"""One fleet for all system tests of a worker: a coordinator on SQLite and a storage called ``primary``."""

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet

from turku.demo.private_machine import PrivateMachine
from turku.demo.private_storage import PrivateStorage
from turku.errors import TurkuError


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Show what a failed command printed, not only that it failed."""
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, TurkuError) and not hasattr(error, "__notes__"):
        error.add_note(error.details)
    return (yield)


MakeMachine = Callable[..., PrivateMachine]


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as running:
        running.storage("primary")
        yield running


@pytest.fixture(scope="session")
def storage(fleet: Fleet) -> PrivateStorage:
    return fleet.storages["primary"]


@pytest.fixture(scope="session")
def make_machine(fleet: Fleet) -> MakeMachine:
    """Registers another machine, with a name of its own: ``make_machine(sources, **configuration)``."""
    numbers = itertools.count()

    def make(sources: Mapping[str, Mapping[str, Any]], **configuration: Any) -> PrivateMachine:
        return fleet.machine(f"machine-{next(numbers)}", sources, **configuration)

    return make


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A small tree to back up."""
    tree = tmp_path / "files"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "a.txt").write_text("a\n")
    (tree / "b.txt").write_text("b\n")
    (tree / "sub" / "c.txt").write_text("c\n")
    (tree / "sub" / "link").symlink_to("c.txt")
    return tree
