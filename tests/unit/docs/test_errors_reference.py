"""The page of errors has every class with its code and exit code, and no other."""

import importlib.util
import pkgutil
from collections.abc import Iterator

from tests.support import markdown
from tests.support.markdown import REPOSITORY

import turku
from turku.errors import TurkuError

PAGE = "docs/reference/errors.md"


def _subclasses(kind: type[TurkuError]) -> Iterator[type[TurkuError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _subclasses(below)


def classes_with_a_code_of_their_own() -> list[type[TurkuError]]:
    """Every error class of ours that names its own code, wherever it is defined."""
    for module in pkgutil.walk_packages(turku.__path__, "turku."):
        if "class " in _source(module) and "Error" in _source(module) and ".migrations" not in module.name:
            importlib.import_module(module.name)
    return [kind for kind in _subclasses(TurkuError) if "code" in kind.__dict__ and kind.__module__.startswith("turku")]


def _source(module: pkgutil.ModuleInfo) -> str:
    specification = importlib.util.find_spec(module.name)
    assert specification is not None
    if not specification.origin or not specification.origin.endswith(".py"):
        return ""
    with open(specification.origin, encoding="utf-8") as stream:
        return stream.read()


def test_every_error_is_described_with_its_code_and_exit_code() -> None:
    described = {
        (row.key, row.cells[1], row.cells[2].strip("`")) for row in markdown.table((REPOSITORY / PAGE).read_text())
    }
    known = {(kind.code, str(kind.exit_code), kind.__name__) for kind in classes_with_a_code_of_their_own()}
    assert described == known


def test_every_description_says_something() -> None:
    for row in markdown.table((REPOSITORY / PAGE).read_text()):
        assert len(row.cells[3]) > 20, row.key
