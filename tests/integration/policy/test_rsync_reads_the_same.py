"""The real rsync reads filter rules, excludes and module names as we do."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from turku.core import command
from turku.errors import InvalidValue
from turku.policy import filters, names

TREE = (
    "a",
    "b.tmp",
    "ab",
    "_a",
    "-a",
    "!a",
    "#a",
    "a b",
    " a",
    "a ",
    "d/a",
    "d/b.tmp",
    "d/e/a",
    "x/a",
    "x/keep",
    "+",
    "!",
)
_SYNTAX_ERROR = 1


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in TREE:
        (root / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "from" / name).write_text(name)
    # What a receiver's rules protect or not.
    for name in ("old", "old.tmp", "d/old"):
        (root / "to" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "to" / name).write_text(name)
    return root


def transferred(tree: Path, arguments: Sequence[str]) -> list[bytes] | None:
    """Return the paths that a run would transfer and delete, or None where rsync finds the arguments wrong."""
    completed = command.run(
        ["rsync", "-an", "--delete", "--itemize-changes", *arguments, "from/", "to/"],
        timeout_seconds=30,
        working_directory=tree,
        # rsync reads $HOME/.cvsignore for what we refuse.
        extra_environment={"HOME": str(tree)},
        check=False,
    )
    assert completed.exit_code in (0, _SYNTAX_ERROR), completed
    # The order of deletions is not always the same.
    return sorted(completed.stdout.splitlines()) if completed.exit_code == 0 else None


LAWFUL = [
    *(
        "- *.tmp",
        "-_*.tmp",
        "exclude *.tmp",
        "exclude,_*.tmp",
        "-! */",
        "+ a",
        "- _a",
        "- -a",
        "- #a",
        "- !",
        "- !a",
        "-  a",
    ),
    *(
        "- a ",
        "- a b",
        "hide a",
        "H a",
        "show,p a",
        "P old",
        "protect old*",
        "protect,! old",
        "R old",
        "-s a",
        "-r old",
    ),
    *("-sr a", "-rs a", "-p a", "-x user.*", "- /a", "-/ a", "- d/", "- d/***", "- d/**", "- **/a", "- [ab]", "- ?b"),
    *("include a", "risk,p old", "-, a", "- +", "- d/e/", "-ss a", "- x/*", "-s! */"),
]


@pytest.mark.parametrize("text", LAWFUL)
def test_a_printed_rule_does_what_the_rule_did(tree: Path, text: str) -> None:
    printed = filters.parse_rule(text).text
    others = ["--filter=+ x/keep", "--filter=- d/e"]
    as_given = transferred(tree, [f"--filter={text}", *others])
    assert as_given is not None
    assert transferred(tree, [f"--filter={printed}", *others]) == as_given


@pytest.mark.parametrize(
    "text",
    [
        "*.tmp",
        "a",
        " a",
        "a ",
        "_a",
        "-a",
        "- a",
        "+ a",
        "+",
        "-",
        "!a",
        "#a",
        "/a",
        "d/",
        "- -a",
        "a b",
        "- !",
        "[ab]",
    ],
)
def test_an_excludes_rule_does_what_rsyncs_exclude_does(tree: Path, text: str) -> None:
    as_given = transferred(tree, [f"--exclude={text}", "--filter=- [ab]*"])
    assert as_given is not None
    assert transferred(tree, [f"--filter={filters.parse_exclude(text).text}", "--filter=- [ab]*"]) == as_given


def test_an_exclude_of_an_exclamation_mark_would_have_cleared_the_rules_before(tree: Path) -> None:
    assert transferred(tree, ["--exclude=*", "--exclude=!"]) == transferred(tree, [])
    with pytest.raises(InvalidValue):
        filters.parse_exclude("!")


def test_rules_made_at_random_are_lawful_to_both_or_refused_with_a_reason(tree: Path) -> None:
    chance = random.Random(20261124)
    prefixes = ["-", "+", "H", "S", "P", "R", "exclude", "include", "hide", "show", "protect", "risk", "x", "", " "]
    lawful = 0
    for _ in range(150):
        text = chance.choice(prefixes)
        text += "".join(chance.choice(",/!srpxnwe-+") for _ in range(chance.choice([0, 0, 1, 2])))
        text += chance.choice([" ", " ", "_", ""]) + "".join(
            chance.choice("a*?d/_ !.") for _ in range(chance.randrange(4))
        )
        try:
            printed: str | None = filters.parse_rule(text).text
        except InvalidValue:
            printed = None
        as_given = transferred(tree, [f"--filter={text}"])
        assert (as_given is None) == (printed is None), text
        if printed is not None:
            lawful += 1
            assert transferred(tree, [f"--filter={printed}"]) == as_given, (text, printed)
    assert lawful > 40


def test_a_refused_rule_would_have_read_a_file_of_the_storage(tree: Path) -> None:
    (tree / "rules").write_text("- *\n")
    (tree / ".cvsignore").write_text("*\n")
    everything = transferred(tree, [])
    for text in (". rules", "merge rules", "-C"):
        assert transferred(tree, [f"--filter={text}"]) != everything
        with pytest.raises(InvalidValue):
            filters.parse_rule(text)
    for name in ("rules", ".cvsignore"):
        (tree / name).unlink()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "etc",
            "_",
            "0",
            "a b",
            "a-b",
            "a_b.c,d:e+f=g@h~i(j)k^l",
            "größe",
            "データ",
            "x" * names.SOURCE_NAME_LIMIT_BYTES,
        ),
        *("Globals", "a.", "a-"),
    ],
)
def test_a_lawful_source_name_is_a_module_and_a_part_of_its_address(tree: Path, tmp_path: Path, name: str) -> None:
    configuration = tmp_path / "rsyncd.conf"
    configuration.write_text(
        f"use chroot = no\n{'uid = 0' if os.geteuid() == 0 else ''}\n[{names.source_name(name)}]\npath = {tree}/from\n"
    )
    completed = command.run(
        ["rsync", "-r", f"rsync://user@127.0.0.1:1/{name}/"],
        timeout_seconds=30,
        # A daemon on a socket pair: no port is opened.
        extra_environment={"RSYNC_CONNECT_PROG": f"rsync --daemon --config={configuration}"},
    )
    assert b"d/b.tmp" in completed.stdout
