"""rsync's rules by which a module takes what was asked for and nothing else."""

from __future__ import annotations

import pytest

from turku.agent.receiving_daemon import rule_lines

TEMPORARY = [b"+ /.turku-restore/***", b"+ .turku-restore-partial/***"]


def lines(paths: list[bytes], closed: list[bytes] | None = None) -> list[bytes]:
    return rule_lines(paths, closed or []).splitlines()


def test_all_of_it_takes_no_rule() -> None:
    assert lines([]) == []


def test_a_path_comes_with_what_is_above_and_below_it_and_with_nothing_else() -> None:
    assert lines([b"a/b/c"]) == [b"+ /a/", b"+ /a/b/", b"+ /a/b/c", b"+ /a/b/c/***", *TEMPORARY, b"- *"]


def test_links_are_closed_before_anything_is_let_in() -> None:
    assert lines([b"a"], [b"a/link"])[0] == b"- /a/link/**"
    assert lines([], [b"link"]) == [b"- /link/**"]


@pytest.mark.parametrize(
    ("name", "plain", "below"),
    [
        (b"a*b", rb"a\*b", rb"a\*b"),
        (b"[x]", rb"\[x]", rb"\[x]"),
        (b"what?", rb"what\?", rb"what\?"),
        # A backslash is itself where there is no wildcard, and escapes where there is one.
        (b"back\\slash", b"back\\slash", b"back\\\\slash"),
        (b"two\nlines", b"two?lines", b"two?lines"),
        (b"caf\xe9", b"caf\xe9", b"caf\xe9"),
    ],
)
def test_wildcards_in_names_are_names(name: bytes, plain: bytes, below: bytes) -> None:
    assert lines([name])[:2] == [b"+ /" + plain, b"+ /" + below + b"/***"]


def test_no_name_becomes_a_line_of_its_own() -> None:
    for line in lines([b"a\n+ /etc/***", b"x\r- *"]):
        assert line.startswith((b"+ /a?", b"+ /x?", *TEMPORARY, b"- *")), line
