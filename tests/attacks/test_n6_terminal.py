"""N6: names of files steer the terminal of whoever looks at them, or forge lines: in listings, as JSON, in errors and logs,
of the storage's and of the agent's commands, in a terminal and in a pipe."""

import json
import os
import pty
import re
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet

from turku.core import command
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine
from turku.demo.private_storage import PrivateStorage

# All of them, but for NUL, which no name has.
NAMES = [
    *(b"c0-%c-end" % code for code in range(1, 0x20)),
    b"del-\x7f-end",
    *(f"c1-{chr(code)}-end".encode() for code in range(0x80, 0xA0)),
    *(
        f"bidi-{each}-end".encode()
        for each in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    ),
    "separators-\u2028-\u2029-end".encode(),
    b"raw-\x9b31m-\xff-end",
    b"esc-\x1b[2J\x1b]0;owned\x07-end",
    b"line\nFORGED: a line",
    b"line\r\nerror [forged]: a line",
    "tél-日本".encode(),
]
# What ends a row of a terminal, what stands between columns in a pipe, and the sequences of a table's own headings.
LAYOUT = re.compile(r"\r?\n|\t|\x1b\[[0-9;]*m")


class Scene:
    def __init__(self, fleet: Fleet, machine: PrivateMachine, storage: PrivateStorage) -> None:
        self.machine, self.storage = machine, storage
        self.snapshots = [path.name for path in fleet.snapshots(machine, "etc")]

    def argv(self, program: str, words: list[str]) -> list[str]:
        config_dir = self.storage.config_dir if program == "turku-storage" else self.machine.config_dir
        return [str(programs.DIRECTORY / program), *words, "--config-dir", str(config_dir)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("terminal")
    source = directory / "source"
    source.mkdir()
    with Fleet(directory / "fleet") as fleet:
        storage = fleet.storage("primary")
        machine = fleet.machine("m", {"etc": {"path": str(source)}})
        for content in (b"before", b"afterwards"):
            for name in NAMES:
                Path(os.fsdecode(bytes(source) + b"/" + name)).write_bytes(content)
            fleet.make_due(machine)
            machine.ping()
        yield Scene(fleet, machine, storage)


def in_terminal(argv: list[str], *, kind: str = "xterm") -> str:
    """All that comes to a terminal."""
    child, descriptor = pty.fork()
    if child == 0:
        os.environ.update(COLUMNS="200", LC_ALL="C.UTF-8", TERM=kind)
        os.execv(argv[0], argv)
    output = b""
    while select.select([descriptor], [], [], 60)[0]:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:
            break
        if not piece:
            break
        output += piece
    os.waitpid(child, 0)
    os.close(descriptor)
    return output.decode("utf-8", "surrogateescape")


def in_pipe(argv: list[str], *, with_errors: bool = True) -> str:
    redirected = "2>&1" if with_errors else "2>/dev/null"
    completed = command.run(
        ["sh", "-c", f'"$0" "$@" {redirected}', *argv],
        timeout_seconds=60,
        check=False,
        extra_environment={"LC_ALL": "C.UTF-8"},
    )
    return completed.stdout.decode("utf-8", "surrogateescape")


def assert_harmless(text: str) -> None:
    rest = LAYOUT.sub("", text)
    assert rest.isprintable(), sorted({character for character in rest if not character.isprintable()})
    assert not re.search(r"^(FORGED|error \[forged\])", text, re.MULTILINE)


STORAGE = [["ls", "etc"], ["find", "etc", "*"], ["versions", "etc", "NAME"], ["diff", "etc", "FIRST", "LAST"]]
STORAGE += [["snapshots"], ["verify"], ["drill"], ["quarantine", "list"], ["trash", "list"], ["retention", "-n"]]
AGENT = [["ls", "etc"], ["find", "etc", "*"], ["versions", "etc", "NAME"], ["diff", "etc", "FIRST", "LAST"]]
AGENT += [["snapshots", "etc"]]
LISTINGS = [("turku-storage", words) for words in STORAGE] + [("turku-agent", words) for words in AGENT]
ESCAPING = os.fsdecode(NAMES[-4])


def named(scene: Scene, words: list[str], name: str = ESCAPING) -> list[str]:
    meant = {"NAME": name, "FIRST": scene.snapshots[0], "LAST": scene.snapshots[-1]}
    return [meant.get(word, word) for word in words]


@pytest.mark.parametrize("is_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize(
    ("program", "words"), LISTINGS, ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_n6_no_listing_steers_a_terminal(scene: Scene, program: str, words: list[str], is_json: bool) -> None:
    argv = scene.argv(program, [*named(scene, words), *(["--json"] if is_json else [])])
    if is_json:
        # What is logged beside it is no part of it.
        argv = ["/bin/sh", "-c", 'exec "$0" "$@" 2>/dev/null', *argv]
    shown = in_terminal(argv)
    assert_harmless(shown)
    piped = in_pipe(argv)
    assert_harmless(piped)
    if is_json:
        json.loads(shown)
        json.loads(piped)
    if words[0] in ("ls", "find", "diff"):
        assert "-end" in shown


@pytest.mark.parametrize("program", ["turku-storage", "turku-agent"])
def test_n6_escaped_json_loses_nothing(scene: Scene, program: str) -> None:
    rows: list[dict[str, Any]] = json.loads(in_pipe(scene.argv(program, ["ls", "etc", "--json"]), with_errors=False))
    assert sorted(path_of(row["path"]) for row in rows) == sorted(NAMES)


def path_of(field: Any) -> bytes:
    if isinstance(field, str):
        return field.encode()
    import base64

    return base64.b64decode(field["b64"])


def test_n6_no_error_steers_a_terminal(scene: Scene) -> None:
    name = os.fsdecode(b"".join(NAMES).replace(b"-end", b""))
    for words in (["versions", "etc", f"missing-{name}"], ["versions", name, "x"], ["ls", "etc", name]):
        for program in ("turku-storage", "turku-agent"):
            shown = in_terminal(scene.argv(program, words))
            assert_harmless(shown)
            assert "error [" in shown


def test_n6_no_restore_steers_a_terminal(scene: Scene, tmp_path: Path) -> None:
    for words in (["--dry-run"], ["--yes"], ["--yes", "--in-place"]):
        where = [] if "--in-place" in words else ["--to", str(tmp_path / "restored")]
        # The bar's own sequences are not what this is about.
        shown = in_terminal(scene.argv("turku-agent", ["restore", "etc", *where, *words]), kind="dumb")
        assert_harmless(shown)
        assert str(len(NAMES)) in shown


def test_n6_the_log_has_lines_of_ours_alone(scene: Scene) -> None:
    text = scene.storage.log_file.read_text(errors="surrogateescape")
    assert_harmless(text)
    assert all(line.startswith("[20") or line.startswith("  | ") for line in text.splitlines())
