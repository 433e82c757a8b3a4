"""Print the pinned requirements of a part of the packages, with hashes, for one version of Python.

Usage: pinned.py common|api PYTHON-VERSION. The versions and hashes are those of constraints.txt. What a requirement
requires itself is read from the packages that are installed beside the running Python, which are the same ones.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = {"common": ("yaml",), "api": ("api",)}
"""Part to the extras of turku that it serves. The part common also serves what turku requires without an extra."""
_COMPILED = "psycopg-binary"
"""It brings copies of libpq and OpenSSL. The packages have psycopg-c instead (compiled.txt) with the release's own."""


def closure(requirements: Iterable[Requirement], extras: Iterable[str], python: str) -> set[str]:
    """Return the names of the requirements that hold for these extras, and of all that they require in turn."""
    names: set[str] = set()
    environments = [
        {"extra": extra, "python_version": python, "python_full_version": f"{python}.0"} for extra in extras
    ]
    for each in requirements:
        if each.marker is not None and not any(each.marker.evaluate(environment) for environment in environments):
            continue
        required = [Requirement(text) for text in metadata.requires(each.name) or ()]
        names |= {canonicalize_name(each.name)} | closure(required, ["", *sorted(each.extras)], python)
    return names


def names_of(part: str, python: str) -> set[str]:
    """Return the names of the packages of a part. No package is in two parts."""
    turku = [Requirement(text) for text in metadata.requires("turku") or ()]
    common = closure(turku, ("", *PARTS["common"]), python)
    return common if part == "common" else closure(turku, PARTS[part], python) - common - {_COMPILED}


def pins(names: set[str], constraints: str) -> Iterator[str]:
    """Yield the entries of constraints.txt, with their hashes, that have these names."""
    for entry in re.findall(r"^[a-z][^\n]*(?:\n +[^\n]*)*", constraints, re.MULTILINE):
        if canonicalize_name(entry.partition("==")[0]) in names:
            yield entry


def main(part: str, python: str) -> None:
    """Print the requirements of the part."""
    names = names_of(part, python)
    found = list(pins(names, (REPOSITORY / "constraints.txt").read_text()))
    if len(found) != len(names):
        sys.exit(f"pinned.py: constraints.txt does not pin all of {', '.join(sorted(names))}: run 'make constraints'")
    print("\n".join(found))  # noqa: T201  (the output of this script)


if __name__ == "__main__":
    main(*sys.argv[1:])
