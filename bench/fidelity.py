"""The properties of a file that come back by each way, tried with real programs, and their tables in docs/fidelity.md.

    .venv/bin/python -m bench.fidelity             tries everything, as root: about two minutes
    .venv/bin/python -m bench.fidelity --tables    makes the tables anew from bench/figures/fidelity.json

Every snapshot mode, storages with root and without, and every way of restoring are tried, and restic and Borg with the
same tree, as their manuals begin. Every loss needs its reason in ``REASONS``: a table that cannot explain itself is not
made.
"""

import argparse
import json
import re
import textwrap
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench import contenders
from bench.contenders import Borg, Contender, Restic
from tests.support import fidelity_table
from tests.support.attribute_tree import facts
from tests.support.fidelity_table import MODES, PROPERTIES, WAYS, Trial, compared, make_source

from turku.errors import CommandFailed

REPOSITORY = Path(__file__).resolve().parent.parent
FIGURES = REPOSITORY / "bench" / "figures" / "fidelity.json"
PAGE = REPOSITORY / "docs" / "fidelity.md"
PEERS: Mapping[str, type[Contender]] = {"restic": Restic, "Borg": Borg}
ROOT = {"root": True, "without root": False}
WORDS = {"kept": "yes", "narrowed": "narrower", "lost": "no", "wider": "**wider**"}
_SUPERSCRIPT = str.maketrans(
    "0123456789",
    "\N{SUPERSCRIPT ZERO}\N{SUPERSCRIPT ONE}\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT THREE}\N{SUPERSCRIPT FOUR}"
    "\N{SUPERSCRIPT FIVE}\N{SUPERSCRIPT SIX}\N{SUPERSCRIPT SEVEN}\N{SUPERSCRIPT EIGHT}\N{SUPERSCRIPT NINE}",
)
PARTLY = "partly"
"""Instead of ``no`` where it is so for less than half of the entries that have the property."""
NO_SUCH_WAY = "-"
WAY_TITLES = {
    "whole": "whole",
    "paths": "paths",
    "in place": "in place",
    "ordered": "ordered",
    "drill": "drill",
    "ordinary user": "other user",
}

ORDER = sorted(WAYS, key=lambda way: (way == "ordinary user", way == "in place"))
"""In place and as another user last: both change what the others need."""
Found = Mapping[str, Any]
"""The content of the file: versions, and by name of a case, of a way, and of a property, what is not kept."""


class Reason(NamedTuple):
    """The reason of a loss, for the properties, cases and ways that it names. No names mean all."""

    text: str
    properties: tuple[str, ...]
    cases: tuple[str, ...] = ()
    ways: tuple[str, ...] = ()

    def fits(self, name: str, case: str, way: str) -> bool:
        """Return True where it explains the cell."""
        is_case = not self.cases or any(each in case for each in self.cases)
        return name in self.properties and is_case and (not self.ways or way in self.ways)


_BY_ROOT_ALONE = (
    *("owner and group, by number", "owner of symbolic links", "security.capability", "security.selinux"),
    *("security.selinux of links", "trusted.* attributes", "device nodes"),
)
_LABELS = ("security.selinux", "security.selinux of links")
REASONS = (
    Reason(
        "ext4 and XFS begin on 13 December 1901. On such a volume an earlier date becomes that date, and the run says "
        "so, except in mode none. btrfs has every date, so the modes differ by the file system that they were tested "
        "on.",
        ("dates before 1902",),
        ("link-dest", "reflink", "none"),
    ),
    Reason("rsync has no option for them, and restic none either.", ("flags (chattr)",), (*MODES, "restic")),
    Reason(
        "A drill as root may set file capabilities, and no more. Files with other attributes of this kind are counted, "
        "and compared without them. Restores set them.",
        (*_LABELS, "trusted.* attributes"),
        (", root",),
        ("drill",),
    ),
    Reason(
        "Only root can set it. The restore names the attributes with the number of files, says that owners were not "
        "restored, counts devices that were not restored, and ends with exit code 3.",
        _BY_ROOT_ALONE,
        ways=("ordinary user",),
    ),
    Reason(
        "rsync without root lets the owner of a directory enter it (mode 0660 becomes 0760). Nobody else gains "
        "access, and all other ACLs are as they were.",
        ("access ACLs",),
        ways=("ordinary user",),
    ),
    Reason(
        "Not by default: `borg extract` has `--sparse`, and so has restic from 0.15.", ("holes",), ("restic", "Borg")
    ),
    Reason("Both skip them.", ("sockets",), ("restic", "Borg")),
    Reason("This restic reads no attributes of links.", ("security.selinux of links",), ("restic",)),
    Reason(
        "This restic keeps times as nanoseconds in 64 bits, which end in 2262.",
        ("dates from 1902 to 2446",),
        ("restic",),
    ),
    Reason(
        "This Borg restores no date before 1970, and none after January 2038.",
        ("dates from 1902 to 2446", "dates before 1902"),
        ("Borg",),
    ),
)


def case_name(mode: str, is_root: str) -> str:
    """Return what a case is called in the file."""
    return f"{mode}, {is_root}"


def tried() -> dict[str, Any]:
    """Return what became of everything by every way."""
    begin = time.monotonic()
    begun = datetime.now(UTC).isoformat()
    cases: dict[str, Any] = {}
    with Trial() as trial:
        for mode in MODES:
            for title, is_root in ROOT.items():
                case = trial.case(mode, is_root=is_root)
                name = case_name(mode, title)
                print(name, flush=True)
                case.back_up()
                cases[name] = {way: fidelity_table.plain(case.restore(way)) for way in ORDER}
        for name, contender in PEERS.items():
            print(name, flush=True)
            cases[name] = {"whole": _of_peer(trial, name, contender)}
    versions = contenders.versions()
    return {
        "begun": begun,
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "command": "python -m bench.fidelity",
        "machine": contenders.machine(),
        "versions": {name: versions[name] for name in ("rsync", "restic", "borg")},
        "cases": cases,
    }


def _of_peer(trial: Trial, name: str, contender: type[Contender]) -> dict[str, dict[str, Any]] | None:
    source, target = trial.directory("source"), trial.directory(name)
    make_source(source)
    peer = contender(trial.repository(name), source)
    before = {path: entry for path, entry in facts(source).items() if path != "."}
    peer.prepare()
    for work in (peer.back_up, lambda: peer.restore(target)):
        try:
            work()
        except CommandFailed as error:
            # What it could not do is among what is compared.
            print(error.message, error.details, sep="\n")
    after = {path: entry for path, entry in facts(target).items() if path != "."}
    return fidelity_table.plain(compared(before, after))


# --- the tables


class _Table:
    """Tables that share their footnotes."""

    def __init__(self, found: Found) -> None:
        self._cases = found["cases"]
        self._notes: list[str] = []

    def table(self, columns: Mapping[str, Iterable[tuple[str, str]]]) -> list[str]:
        """Return a table: for each column the cells that are shown as one, each by its case and way."""
        lines = [
            ["property", *columns],
            *([name, *(self._cell(name, list(each)) for each in columns.values())] for name in PROPERTIES),
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        head, *rows = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
        return ["| " + " | ".join(row) + " |" for row in (head, ["-" * width for width in widths], *rows)]

    def _cell(self, name: str, cells: list[tuple[str, str]]) -> str:
        states: dict[str, None] = {}
        notes = []
        for case, way in cells:
            found = self._cases[case][way]
            state = NO_SUCH_WAY if found is None else _word(found.get(name))
            states[state] = None
            if state not in (NO_SUCH_WAY, WORDS["kept"]):
                notes.append(self._note(name, case, way))
        shown = [state for state in states if state != NO_SUCH_WAY] or [NO_SUCH_WAY]
        raised = [str(note).translate(_SUPERSCRIPT) for note in dict.fromkeys(notes)]
        return "/".join(sorted(shown, reverse=True)) + " ".join(raised)

    def _note(self, name: str, case: str, way: str) -> int:
        for reason in REASONS:
            if reason.fits(name, case, way):
                if reason.text not in self._notes:
                    self._notes.append(reason.text)
                return self._notes.index(reason.text) + 1
        raise ValueError(f"nobody says why {name!r} is not kept by {way!r} of {case!r}")

    def notes(self) -> list[str]:
        """Return the reasons for what is not kept, by their numbers."""
        return [
            textwrap.fill(f"{number}. {text}", width=118, subsequent_indent=" " * len(f"{number}. "))
            for number, text in enumerate(self._notes, 1)
        ]


def _word(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return WORDS["kept"]
    is_partial = cell["state"] == "lost" and 2 * cell["differing"] < cell["having"]
    return PARTLY if is_partial else WORDS[cell["state"]]


def tables(found: Found) -> str:
    """Return all tables, with what they were made with, and their notes."""
    table = _Table(found)
    versions = found["versions"]
    modes = list(MODES)
    by_way = {
        title: {WAY_TITLES[way]: [(case_name(mode, title), way) for mode in modes] for way in WAYS} for title in ROOT
    }
    lines = [
        f"{found['begun'][:10]}, `{found['command']}`: {found['machine']};",
        f"rsync {versions['rsync']}, restic {versions['restic']}, Borg {versions['borg']}.",
        "",
        "### A storage as root, and restic and Borg",
        "",
        *table.table({**by_way["root"], **{name: [(name, "whole")] for name in PEERS}}),
        "",
        "### A storage without root",
        "",
        *table.table(by_way["without root"]),
        "",
        "### Each snapshot mode, by storages with root and without",
        "",
        *table.table({mode: [(case_name(mode, title), "whole") for title in ROOT] for mode in modes}),
        "",
        "### Reasons",
        "",
        *table.notes(),
    ]
    return "\n".join(lines)


def rewritten(text: str, found: Found) -> str:
    """Return the page with the tables between its markers."""
    marked = re.compile(r"(<!-- begin fidelity -->\n).*?(<!-- end fidelity -->)", re.DOTALL)
    content = tables(found)
    return marked.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)


def main() -> None:
    """Try everything, and write what was found."""
    parser = argparse.ArgumentParser(description="try which property of a file comes back by which way")
    parser.add_argument("--tables", action="store_true", help="make the tables from what was found last")
    if not parser.parse_args().tables:
        contenders.require()
        FIGURES.write_text(json.dumps(tried(), indent=1) + "\n")
    PAGE.write_text(rewritten(PAGE.read_text(), json.loads(FIGURES.read_text())))


if __name__ == "__main__":
    main()
