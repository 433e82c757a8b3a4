"""M12: a machine that restores puts lines of its own into the stream in which the storage's rsync says what it sends.
They change nothing of the answers to the agent, and the agent hears of nothing that it did not ask for.

The daemon is rsync's own. A program between it and the storage adds messages to its side of the conversation.
"""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.collected_answers import CollectedAnswers
from tests.support.landed_restore import TEMPORARY_NAME
from tests.support.rsyncd import Rsyncd

from turku.core.configuration.declaration import with_values
from turku.errors import BackupFailed
from turku.protocol.messages import SourceCredentials
from turku.protocol.restore_messages import MODULE, Deleted, FileRestoreRequest, Manifest, ManifestEntry, RestoreEnd
from turku.storage.containment import bubblewrap
from turku.storage.restore import plan
from turku.storage.restore import push as push_module
from turku.storage.restore.access_grants import AccessGrant, AccessRequest
from turku.storage.restore.history_view import HistoryView
from turku.storage.rsync.change_log import LINE_LIMIT_BYTES

FORGED = "f" * 32
OWN = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
_MESSAGE_TAG = 7 + 2
"""The tag by which rsync sends information: the other side prints it as it is."""


def line(update: str, path: str) -> bytes:
    return f":{update}|{FORGED}|{path}\n".encode()


LINES = [
    line("<f+++++++++", "wanted/kept"),
    line("<f.st......", "wanted/without-checksum"),
    line("<f+++++++++", "secret"),
    line(".f         ", "secret"),
    line("<f+++++++++", "wanted/not-there"),
    line("*deleting  ", "wanted/kept"),
    b"\n" * 10,
]
HIDING = [b":<f+++++++++", b"no line break", b"x" * 4000]
"""Without a line break, so that a line of rsync's own would be their end."""
FLOOD = [b"y" * 4000] * (2 * LINE_LIMIT_BYTES // 4000 + 1)


class Meddler:
    """A program before a daemon that adds messages to those of the daemon, as a context manager."""

    def __init__(self, daemon: Rsyncd, messages: list[bytes]) -> None:
        self.messages_sent = 0
        self._daemon = daemon
        self._messages = messages
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "Meddler":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                storage, _address = self._listener.accept()
                daemon = socket.create_connection(("127.0.0.1", self._daemon.port))
                for target, arguments in ((self._forward, (storage, daemon)), (self._meddle, (daemon, storage))):
                    threading.Thread(target=target, args=arguments, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _meddle(self, daemon: socket.socket, storage: socket.socket) -> None:
        stream = daemon.makefile("rb")
        with suppress(OSError, EOFError, struct.error):
            words = b""
            while not words.startswith(b"@RSYNCD: OK"):
                words = stream.readline()
                storage.sendall(words)
            # Flags of the protocol, a number of one to three bytes, and the seed of checksums.
            first = stream.read(1)
            more = stream.read(0 if first[0] < 0x80 else 1 if first[0] < 0xC0 else 2)
            storage.sendall(first + more + stream.read(4))
            while header := stream.read(4):
                self._add(storage)
                (word,) = struct.unpack("<I", header)
                storage.sendall(header + stream.read(word & 0xFFFFFF))
        with suppress(OSError):
            storage.shutdown(socket.SHUT_WR)

    def _add(self, storage: socket.socket) -> None:
        for message in self._messages:
            storage.sendall(struct.pack("<I", _MESSAGE_TAG << 24 | len(message)) + message)
            self.messages_sent += 1


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume") as machine:
        (machine.source_dir / "wanted").mkdir()
        for name in ("wanted/kept", "wanted/sent", "wanted/without-checksum", "secret"):
            (machine.source_dir / name).write_text(name)
        machine.back_up()
        yield machine


Push = Callable[..., list[object]]


@pytest.fixture
def push(machine: BackedUpMachine, tmp_path: Path) -> Iterator[Push]:
    target = tmp_path / "target"
    (target / "wanted").mkdir(parents=True)
    (target / TEMPORARY_NAME).mkdir()
    view = HistoryView(
        machine.storage, AccessGrant(OWN, "etc", AccessRequest(OWN, "restore", "etc")), clock=machine.clock
    )
    with view.catalog() as known:
        (entry,) = known.history(b"wanted/without-checksum")
        with known.writing() as connection:
            connection.execute("UPDATE versions SET checksum = NULL WHERE id = ?", (entry.version,))

    with Rsyncd(tmp_path / "target-daemon", {MODULE: target}, read_only=False) as daemon:

        def push(
            messages: list[bytes],
            *paths: str,
            sandboxed: Literal["auto", "off"] = "auto",
            meanwhile: Callable[[], object] = lambda: None,
            exit_code: int = 0,
        ) -> list[object]:
            for name in ("wanted/sent", "wanted/without-checksum", "secret"):
                (target / name).unlink(missing_ok=True)
            kept = machine.source_dir / "wanted/kept"
            (target / "wanted/kept").write_bytes(kept.read_bytes())
            os.utime(target / "wanted/kept", ns=(0, kept.stat().st_mtime_ns))
            (target / "wanted/superfluous").write_text("to be deleted")
            collected = CollectedAnswers()
            request = FileRestoreRequest("etc", TEMPORARY_NAME, paths=list(paths), delete=True, knows_xxh128=True)
            with (
                Meddler(daemon, messages) as meddler,
                plan.prepared(machine.storage, view, request) as (prepared, _answer),
            ):
                credentials = SourceCredentials(daemon.username, daemon.password)
                meanwhile()
                storage = with_values(machine.storage, sandbox=sandboxed)
                push_module.push(storage, prepared, collected.answers, port=meddler.port, credentials=credentials)
            assert meddler.messages_sent >= len(messages)
            decoded = collected.read()
            assert isinstance(decoded[-1], RestoreEnd)
            assert decoded[-1].rsync_exit_code == exit_code, decoded[-1]
            return decoded

        yield push


def reported(answers: list[object]) -> tuple[list[ManifestEntry], list[object]]:
    """The manifest and the deletions, as the agent reads them."""
    entries = [entry for each in answers if isinstance(each, Manifest) for entry in each.entries]
    return entries, [path for each in answers if isinstance(each, Deleted) for path in each.paths]


@pytest.mark.parametrize("messages", [LINES, HIDING, FLOOD], ids=["forged", "hiding", "flood"])
@pytest.mark.parametrize("paths", [("wanted",), ()], ids=["a path", "all"])
def test_m12_a_forged_line_changes_nothing_in_the_answers_to_the_agent(
    push: Push, messages: list[bytes], paths: tuple[str, ...]
) -> None:
    honest = reported(push([], *paths))
    entries, deleted = honest
    sent = [*(() if paths else ("secret",)), "wanted/sent", "wanted/without-checksum"]
    assert [entry.path for entry in entries if entry.is_sent] == sent
    assert [entry.path for entry in entries if not entry.is_sent] == ["wanted/kept"]
    assert deleted == ["wanted/superfluous"]
    assert reported(push(messages, *paths)) == honest


@pytest.mark.parametrize("sandboxed", ["auto", "off"])
def test_m12_a_machine_that_hangs_up_while_its_messages_are_read_slowly_fails_no_restore(
    push: Push, monkeypatch: pytest.MonkeyPatch, sandboxed: str
) -> None:
    def read_slowly(stream: IO[bytes], *, limit_bytes: int) -> Iterator[bytes]:
        while chunk := stream.read(4096):
            time.sleep(0.01)
            yield chunk

    monkeypatch.setattr(push_module, "lines_of", read_slowly)
    # rsync waits for space in the pipe of its output until after the machine's end. A signal would end that wait.
    push(FLOOD, "wanted/sent", sandboxed=sandboxed, exit_code=0)


def test_m12_a_file_recorded_without_a_checksum_is_said_to_be_unverified(push: Push) -> None:
    entries, _deleted = reported(push([line("<f+++++++++", "wanted/without-checksum")], "wanted"))
    by_path = {entry.path: entry for entry in entries}
    assert by_path["wanted/without-checksum"].checksum is None
    assert by_path["wanted/sent"].checksum is not None


def test_m12_the_answers_name_nothing_that_it_did_not_ask_for(push: Push) -> None:
    answers = push(LINES, "wanted/sent")
    entries, _deleted = reported(answers)
    assert [(entry.path, entry.checksum is not None) for entry in entries] == [("wanted/sent", True)]
    # Its own messages come back to it as such.
    (end,) = (each for each in answers if isinstance(each, RestoreEnd))
    assert any(FORGED in text for text in end.last_lines)


def test_m12_a_tree_put_in_the_place_of_the_planned_one_at_the_last_moment_is_not_sent(
    push: Push, machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tree = machine.newest_tree()

    def swapped(directory: int, argv: Sequence[str]) -> list[str]:
        tree.rename(tree.with_name("moved"))
        (tree / "wanted").mkdir(parents=True)
        (tree / "wanted/sent").write_text("another machine's")
        return confirmed(directory, argv)

    confirmed = bubblewrap.in_same_directory
    monkeypatch.setattr(bubblewrap, "in_same_directory", swapped)
    (end,) = push([], "wanted", exit_code=3)
    assert isinstance(end, RestoreEnd)
    assert "the directory to work in was replaced meanwhile" in end.last_lines
    assert not (tmp_path / "target/wanted/sent").exists()


@pytest.mark.parametrize("sandboxed", ["auto", "off"])
def test_m12_nor_is_one_that_was_put_there_before(
    push: Push, machine: BackedUpMachine, tmp_path: Path, sandboxed: str
) -> None:
    tree = machine.newest_tree()

    def swap() -> None:
        tree.rename(tree.with_name("moved"))
        (tree / "wanted").mkdir(parents=True)
        (tree / "wanted/sent").write_text("another machine's")

    with pytest.raises(BackupFailed, match="replaced meanwhile"):
        push([], "wanted", sandboxed=sandboxed, meanwhile=swap)
    assert not (tmp_path / "target/wanted/sent").exists()


def test_m12_the_messages_of_rsync_do_not_show_where_the_tree_lies(push: Push, machine: BackedUpMachine) -> None:
    tree = machine.newest_tree()
    answers = push([], "wanted/sent", sandboxed="off", meanwhile=(tree / "wanted/sent").unlink, exit_code=23)
    (end,) = (each for each in answers if isinstance(each, RestoreEnd))
    assert any("wanted/sent" in text for text in end.last_lines)
    assert not any(tree.name in text for text in end.last_lines)
