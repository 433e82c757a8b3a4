"""The versions of the programs on this host. Asking a program takes a process, so its answer is kept with its file."""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from turku import __version__
from turku.core.log import one_line
from turku.errors import TurkuError

_OS_RELEASE = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
_VERSION = re.compile(r"(?:version v?|OpenSSH_)(\d[\w.]*)")
_TIMEOUT_SECONDS = 10.0
_LENGTH = 100
_ARGUMENTS = {"ssh": ("-V",)}


class KnownProgram(msgspec.Struct, frozen=True):
    """A program's file when it was asked, and its version."""

    path: str
    mtime_ns: int
    size: int
    version: str


def versions(
    programs: Mapping[str, Sequence[str]], known: Mapping[str, KnownProgram]
) -> tuple[dict[str, str], dict[str, KnownProgram]]:
    """Return the versions of Turku, Python, the operating system and these programs, and what to keep of them.

    ``programs`` has the command of each. Those that cannot be asked are left out.
    """
    kept = {name: program for name, words in programs.items() if (program := _program(name, words, known.get(name)))}
    own = {"turku": __version__, "python": ".".join(map(str, sys.version_info[:3])), "os": _operating_system()}
    found = {**own, **{name: each.version for name, each in kept.items()}}
    return {name: one_line(text)[:_LENGTH] for name, text in found.items() if text}, kept


def _program(name: str, words: Sequence[str], known: KnownProgram | None) -> KnownProgram | None:
    path = shutil.which(words[0]) if words else None
    if path is None:
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return None
    if known is not None and (known.path, known.mtime_ns, known.size) == (path, status.st_mtime_ns, status.st_size):
        return known
    version = _asked([*words, *_ARGUMENTS.get(name, ("--version",))])
    return KnownProgram(path, status.st_mtime_ns, status.st_size, version) if version else None


def _asked(words: Sequence[str]) -> str:
    # Imported here, because most runs find the answer in what was kept.
    from turku.core import command

    try:
        ended = command.run(words, timeout_seconds=_TIMEOUT_SECONDS, check=False)
    except (TurkuError, OSError):
        return ""
    match = _VERSION.search(" ".join([ended.stdout.decode("utf-8", "replace"), *ended.last_lines]))
    return match[1] if match else ""


def _operating_system() -> str:
    for path in _OS_RELEASE:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        fields = dict(line.partition("=")[::2] for line in lines if "=" in line)
        return (fields.get("PRETTY_NAME") or fields.get("NAME", "")).strip().strip("\"'")
    return ""
