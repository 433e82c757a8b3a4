"""The change log: parsing of itemized lines, and the spool file that keeps them."""

import threading
from pathlib import Path

import pytest

from turku.storage.rsync.change_log import Change, ChangeKind, ChangeLog, ItemizedLine, parse, unescape

CHECKSUM = "7c282968b0591d9654a7d9dde88eadb0"
NONE = b" " * 32


def test_a_new_file_has_its_checksum() -> None:
    assert parse(f":>f+++++++++|{CHECKSUM}|a/b\n".encode()) == ItemizedLine(
        b"a/b", is_new=True, file_type=b"f", checksum=bytes.fromhex(CHECKSUM)
    )


def test_a_file_that_only_got_another_mode_has_none() -> None:
    assert parse(b":.f...p.....|" + NONE + b"|a") == ItemizedLine(b"a", file_type=b"f")


@pytest.mark.parametrize("kind", [b"d", b"L", b"D", b"S"])
def test_every_kind_of_entry(kind: bytes) -> None:
    slash = b"/" if kind == b"d" else b""
    assert parse(b":c" + kind + b"+++++++++|" + NONE + b"|x" + slash) == ItemizedLine(b"x", is_new=True, file_type=kind)


def test_the_tree_itself() -> None:
    assert parse(b":.d..t......|" + NONE + b"|./\n") == ItemizedLine(b".", file_type=b"d")


def test_a_deletion() -> None:
    assert parse(b":*deleting  |" + NONE + b"|d/e/\n") == ItemizedLine(b"d/e", is_deleted=True)


def test_a_checksum_of_another_width_is_none_of_ours() -> None:
    assert parse(b":>f+++++++++|d24ec4f1a98c6e5b|a") == ItemizedLine(b"a", is_new=True, file_type=b"f")
    assert parse(b":.f...p.....|" + b" " * 16 + b"|  a") == ItemizedLine(b"  a", file_type=b"f")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (rb"new\#012line", b"new\nline"),
        (rb"\#134#012", rb"\#012"),
        (rb"\#134#999", rb"\#999"),
        (rb"back\slash", rb"back\slash"),
        (rb"\#12", rb"\#12"),
        (b"\xff\x7f\ttab", b"\xff\x7f\ttab"),
        (rb"ends\#015", b"ends\r"),
    ],
)
def test_names_are_what_the_file_system_has(written: bytes, name: bytes) -> None:
    assert unescape(written) == name
    assert parse(b":>f+++++++++|" + CHECKSUM.encode() + b"|" + written + b"\n").path == name  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [b"  two blanks before", b"-rf", b"|", b"a|b", b":>f+++++++++|", b"*deleting"])
def test_names_that_look_like_something_else(name: bytes) -> None:
    for begin in (b":>f+++++++++|" + CHECKSUM.encode() + b"|", b":*deleting  |" + NONE + b"|"):
        line = parse(begin + name + b"\n")
        assert line is not None
        assert line.path == name


@pytest.mark.parametrize("name", [b"/etc/passwd", b"../a", b"a/../b", b"a//b", b"a/./b", b"..", b"", b"a\0b", b"//"])
def test_a_path_that_leads_out_of_the_tree_is_not_understood(name: bytes) -> None:
    assert parse(b":>f+++++++++|" + NONE + b"|" + name) is None


@pytest.mark.parametrize("text", [b"", b":", b":x", b"sent 5 bytes", b":>f+++++++++ a", b":>q+++++++++||a", b":>f|a"])
def test_a_text_that_is_no_such_line_is_not_understood(text: bytes) -> None:
    assert parse(text) is None


def test_changes_come_back_in_order_as_often_as_asked(tmp_path: Path) -> None:
    wanted = [
        Change(b"a\nb", ChangeKind.CHANGED, is_file=True),
        Change(b"\xff", ChangeKind.DELETED),
        Change(b"x" * 4096, ChangeKind.CHANGED),
        Change(b".", ChangeKind.CHANGED),
    ]
    with ChangeLog(tmp_path) as changes:
        for change in wanted:
            changes.add(change)
        assert list(changes) == wanted
        assert list(zip(changes, changes, strict=True)) == list(zip(wanted, wanted, strict=True))
        assert len(changes) == 4
        assert not changes.lists_every_change
        assert list(tmp_path.iterdir()) == []


def test_many_changes_take_no_memory_but_a_file(tmp_path: Path) -> None:
    with ChangeLog(tmp_path) as changes:
        for number in range(50_000):
            changes.add(Change(b"d/%d" % number, ChangeKind.CHANGED, is_file=number % 2 == 0))
        assert [int(change.path[2:]) for change in changes] == list(range(50_000))
        assert all(change.is_file == (number % 2 == 0) for number, change in enumerate(changes))


def test_a_checksum_in_a_line_is_not_taken_note_of() -> None:
    line = parse(f":>f+++++++++|{CHECKSUM}|a/b\n".encode())
    assert line is not None
    with ChangeLog() as changes:
        changes.add_line(line)
        assert list(changes) == [Change(b"a/b", ChangeKind.CHANGED, is_file=True)]


def test_changes_are_followed_while_they_are_added() -> None:
    seen: list[bytes] = []
    is_over = threading.Event()
    with ChangeLog() as changes:
        follower = threading.Thread(target=lambda: seen.extend(each.path for each in changes.follow(is_over)))
        follower.start()
        for number in range(20_000):
            changes.add(Change(b"%d" % number, ChangeKind.CHANGED))
        changes.flush()
        is_over.set()
        follower.join(30)
        assert seen == [b"%d" % number for number in range(20_000)]
