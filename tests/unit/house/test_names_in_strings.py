"""Names of modules in strings exist: in programs that tests start, targets of ``monkeypatch``, docstrings and pages."""

import ast
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support import markdown
from tests.support.markdown import REPOSITORY

import turku

_PACKAGES = "|".join(each.name for each in pkgutil.iter_modules(turku.__path__))
# Elsewhere than in an import, another second word belongs to a host or a logger.
_NAME = re.compile(
    rf"((?:(?<=from )|(?<=import )|(?<=-m ))turku(?:\.\w+)+|\bturku\.(?:{_PACKAGES})\b(?:\.\w+)*)(?: import ([\w ,]+))?"
)


def names(path: Path) -> Iterator[str]:
    """Yield the names in the strings of a program, or in the text of a page."""
    nodes = ast.walk(ast.parse(path.read_text())) if path.suffix == ".py" else [ast.Constant(path.read_text())]
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    for module, imported in (found for text in texts for found in _NAME.findall(text)):
        yield from (module, *(f"{module}.{each.split()[0]}" for each in imported.split(",") if each.strip()))


def exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def test_each_name_is_that_of_a_module_or_of_a_thing_in_one() -> None:
    programs = (path for root in ("src", "tests", "bench", "docs") for path in (REPOSITORY / root).rglob("*.py"))
    found = {(path, name) for path in (*programs, *markdown.pages()) for name in names(path)}
    assert [f"{path}: {name}" for path, name in found if not exists(name)] == []
