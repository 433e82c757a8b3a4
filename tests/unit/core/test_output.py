"""Printed text steers no terminal: every control character, of C0, C1 and of the writing direction, is escaped."""

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from turku.core import log
from turku.core.cli import entry, listing, output
from turku.core.cli.output import GuardedStream, escaped_json, json_text, printable
from turku.errors import ConfigurationError

STEERING = {
    **{f"C0 {code:#04x}": chr(code) for code in range(0x20) if chr(code) not in "\n\t"},
    "DEL": "\x7f",
    **{f"C1 {code:#04x}": chr(code) for code in range(0x80, 0xA0)},
    **{
        f"bidi {ord(each):#06x}": each
        for each in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    },
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "soft hyphen": "\xad",
    "zero width space": "\u200b",
    "byte order mark": "\ufeff",
    "tag beyond the first plane": "\U000e0041",
    "byte that is no UTF-8": os.fsdecode(b"\xff"),
    "half of a surrogate pair": "\ud800",
    "other half": "\udfff",
}
ORDINARY = ("plain", "tél", "日本", "😀", "a b", "\\x1b", "~", "")


@pytest.mark.parametrize("name", STEERING)
def test_one_line_escapes_it(name: str) -> None:
    shown = log.one_line(f"a{STEERING[name]}b")
    assert shown.isprintable()
    assert shown.startswith("a")
    assert shown.endswith("b")
    assert len(shown) > 3


@pytest.mark.parametrize("name", [*STEERING, "line break", "tab"])
def test_json_escapes_it_and_gives_it_back(name: str) -> None:
    character = {**STEERING, "line break": "\n", "tab": "\t"}[name]
    value = {f"key{character}": [f"a{character}b", character * 3]}
    for indent in (None, 4):
        text = json_text(value, indent=indent)
        assert text.replace("\n", "").isprintable()
        assert json.loads(text) == value


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert log.one_line(text) == printable(text) == text
    assert json_text(text) == json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("name", STEERING)
def test_streams_escape_it_whoever_prints(name: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    guarded = GuardedStream(stream)
    print(f"a{STEERING[name]}b\tc\nd", file=guarded)
    guarded.writelines([STEERING[name], "\n"])
    guarded.flush()
    written = stream.buffer.getvalue().decode()
    assert written.count("\n") == 3
    assert written.replace("\n", "").replace("\t", "").isprintable()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_streams_print_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", GuardedStream(stream))
    print("tél 日本 😀")
    print(json_text(["tél 日本 😀"]))
    stream.flush()
    _text, printed = stream.buffer.getvalue().decode(encoding).splitlines()
    assert json.loads(printed) == ["tél 日本 😀"]


def test_a_listing_for_programs_is_escaped_row_by_row() -> None:
    lines: list[str] = []
    listing.array(({"path": character} for character in STEERING.values()), lines.append)
    assert all(line.isprintable() for line in lines)
    assert [row["path"] for row in json.loads("\n".join(lines))] == list(STEERING.values())


def test_json_keeps_its_own_line_breaks() -> None:
    assert escaped_json('{\n\t"a": "\u202e"\n}') == '{\n\t"a": "\\u202e"\n}'


def test_an_error_with_such_names_is_shown_in_lines_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    forged = "\nerror [forged]: \x1b[2J\u202e"
    entry.print_error(ConfigurationError(f"name{forged}", details=f"detail{forged}", hint=f"hint{forged}"))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error [")] == ["error [configuration]: name"]
    assert all(line.isprintable() for line in lines)


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "log"
    root = logging.getLogger()
    before = list(root.handlers)
    log.set_up("turku-test", destination=str(path), terminal=False)
    yield path
    for each in [each for each in root.handlers if each not in before]:
        each.close()
    root.handlers[:] = before


def test_an_exception_in_the_log_forges_no_entry(handler: Path) -> None:
    try:
        raise ValueError("bad\n[2030-01-01 00:00:00,000 session] INFO: forged \x1b[2J\u202e")
    except ValueError:
        logging.getLogger("session").exception("internal error")
    lines = handler.read_text().splitlines()
    assert [line for line in lines if line.startswith("[2")] == lines[:1]
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_every_program_has_its_streams_guarded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit):
        entry.run(lambda _arguments: print("\x1b[2J\x9b31m\u202e", file=getattr(sys, name)) or 0)
    stream.flush()
    assert "\x1b" not in stream.buffer.getvalue().decode()
    assert output.unguarded(getattr(sys, name)) is stream
