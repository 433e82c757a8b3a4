"""rsync's messages, as releases 3.2.7 and 3.5.0 printed them in the situation that the case names."""

import pytest

from turku.storage.rsync.messages import (
    LINE_LIMIT_BYTES,
    REASON_LIMIT,
    SHOWN_PATH_LIMIT,
    Message,
    MessageKind,
    Side,
    parse,
)

DIRECTORY = b"/stage/new"
DENIED = "Permission denied"
REFUSED = "Operation not permitted"
UNSUPPORTED = "Operation not supported"

PRINTED = [
    pytest.param(
        b'rsync: [sender] send_files failed to open "/sub/shut" (in etc): Permission denied (13)',
        (MessageKind.UNREADABLE_FILE, Side.SENDER, b"sub/shut", DENIED),
        id="unreadable file",
    ),
    pytest.param(
        b'rsync: [sender] send_files failed to open "sub/shut" (in etc): Permission denied (13)',
        (MessageKind.UNREADABLE_FILE, Side.SENDER, b"sub/shut", DENIED),
        id="unreadable file, the daemon without chroot",
    ),
    pytest.param(
        b'rsync: send_files failed to open "/sub/shut" (in etc): Permission denied (13)',
        (MessageKind.UNREADABLE_FILE, Side.SENDER, b"sub/shut", DENIED),
        id="unreadable file, a release that names no side",
    ),
    pytest.param(
        b'rsync: [sender] opendir "/secret" (in etc) failed: Permission denied (13)',
        (MessageKind.UNREADABLE_DIRECTORY, Side.SENDER, b"secret", DENIED),
        id="unreadable directory",
    ),
    pytest.param(
        b'rsync: [sender] opendir "/." (in etc) failed: Permission denied (13)',
        (MessageKind.UNREADABLE_DIRECTORY, Side.SENDER, b".", DENIED),
        id="unreadable source",
    ),
    pytest.param(
        b'rsync: [sender] send_files failed to open "/odd/line\\#012break\tand \\#134#012 "q" \xff\xc3\xa9 \x7f" '
        b"(in etc): Permission denied (13)",
        (MessageKind.UNREADABLE_FILE, Side.SENDER, b'odd/line\nbreak\tand \\#012 "q" \xff\xc3\xa9 \x7f', DENIED),
        id="name with escapes, quotes and bytes that are no UTF-8",
    ),
    pytest.param(
        b'rsync: [sender] read errors mapping "/bad" (in etc): Input/output error (5)',
        (MessageKind.READ_ERROR, Side.SENDER, b"bad", "Input/output error"),
        id="EIO",
    ),
    pytest.param(
        b'rsync: [sender] read errors mapping "/a" (in etc): No data available (61)',
        (MessageKind.TRUNCATED, Side.SENDER, b"a", "No data available"),
        id="truncated while it was read",
    ),
    pytest.param(
        b'file has vanished: "/d/c" (in etc)',
        (MessageKind.VANISHED, Side.SENDER, b"d/c", "file has vanished"),
        id="vanished",
    ),
    pytest.param(
        b'directory has vanished: "/d" (in etc)',
        (MessageKind.VANISHED, Side.SENDER, b"d", "directory has vanished"),
        id="vanished directory",
    ),
    pytest.param(
        b"filename overflows max-path len by 171: eee/fff/ggg",
        (MessageKind.NAME_TOO_LONG, Side.SENDER, b"eee/fff/ggg", "filename overflows max-path len by 171"),
        id="path too long",
    ),
    pytest.param(
        b'rsync: [receiver] open "/stage/new/nnn" failed: File name too long (36)',
        (MessageKind.NAME_TOO_LONG, Side.RECEIVER, b"nnn", "File name too long"),
        id="name too long for the receiver",
    ),
    pytest.param(
        b'skipping non-regular file "run/sock"',
        (MessageKind.NOT_REGULAR, Side.GENERATOR, b"run/sock", "skipping non-regular file"),
        id="device or socket",
    ),
    pytest.param(
        b"ERROR: swap/vma_ra_enabled failed verification -- update discarded.",
        (MessageKind.NOT_VERIFIED, Side.RECEIVER, b"swap/vma_ra_enabled", "failed verification -- update discarded"),
        id="failed verification",
    ),
    pytest.param(
        b"WARNING: a failed verification -- update discarded (will try again).",
        (MessageKind.RETRIED, Side.RECEIVER, b"a", "failed verification -- update discarded (will try again)"),
        id="failed verification, tried again",
    ),
    pytest.param(
        b'rsync: [receiver] write failed on "/stage/new/a": No space left on device (28)',
        (MessageKind.WRITE, Side.RECEIVER, b"a", "No space left on device"),
        id="full disk",
    ),
    pytest.param(
        b'rsync: [receiver] mkstemp "/stage/new/.b.Ykkd1c" failed: Permission denied (13)',
        (MessageKind.WRITE, Side.RECEIVER, b".b.Ykkd1c", DENIED),
        id="file that cannot be made",
    ),
    pytest.param(
        b'rsync: [generator] recv_generator: mkdir "/stage/new/d" failed: Permission denied (13)',
        (MessageKind.DIRECTORY, Side.GENERATOR, b"d", DENIED),
        id="directory that cannot be made",
    ),
    pytest.param(
        b"*** Skipping any contents from this failed directory ***",
        (
            MessageKind.CONTENTS_SKIPPED,
            Side.GENERATOR,
            None,
            "*** Skipping any contents from this failed directory ***",
        ),
        id="contents of it",
    ),
    pytest.param(
        b'rsync: [generator] mknod "/stage/new/blk" failed: Operation not permitted (1)',
        (MessageKind.SPECIAL_FILE, Side.GENERATOR, b"blk", REFUSED),
        id="mknod",
    ),
    pytest.param(
        b'rsync: [generator] symlink "/stage/new/l" -> "y/y/y" failed: File name too long (36)',
        (MessageKind.SYMLINK, Side.GENERATOR, b"l", "File name too long"),
        id="symbolic link, on XFS",
    ),
    pytest.param(
        b'rsync: [generator] link "/stage/new/d/2" => 0 failed: Too many links (31)',
        (MessageKind.HARD_LINK, Side.GENERATOR, b"d/2", "Too many links"),
        id="hard link",
    ),
    pytest.param(
        b'rsync: [generator] chown "/stage/new/l" failed: Operation not permitted (1)',
        (MessageKind.OWNER, Side.GENERATOR, b"l", REFUSED),
        id="chown",
    ),
    pytest.param(
        b'rsync: [receiver] chown "/stage/new/.a.N4STQA" failed: Operation not permitted (1)',
        (MessageKind.OWNER, Side.RECEIVER, b".a.N4STQA", REFUSED),
        id="chown under the name for the time of writing",
    ),
    pytest.param(
        b'rsync: [generator] failed to set times on "/stage/new/.": Operation not permitted (1)',
        (MessageKind.TIMES, Side.GENERATOR, b".", REFUSED),
        id="times",
    ),
    pytest.param(
        b'rsync: [generator] failed to set permissions on "/stage/new/a": Operation not permitted (1)',
        (MessageKind.PERMISSIONS, Side.GENERATOR, b"a", REFUSED),
        id="permissions",
    ),
    pytest.param(
        b'rsync: [receiver] rsync_xal_set: fsetxattr("/stage/new/d","user.t") failed: Operation not supported (95)',
        (MessageKind.ATTRIBUTE, Side.RECEIVER, b"d", UNSUPPORTED),
        id="attribute, 3.5.0",
    ),
    pytest.param(
        b'rsync: [receiver] rsync_xal_set: lsetxattr("/stage/new/d","security.capability") failed: '
        b"Operation not permitted (1)",
        (MessageKind.ATTRIBUTE, Side.RECEIVER, b"d", REFUSED),
        id="attribute, 3.2.7",
    ),
    pytest.param(
        b'rsync: [sender] get_xattr_data: lgetxattr("/d" (in etc),"user.t",0) failed: Permission denied (13)',
        (MessageKind.ATTRIBUTE, Side.SENDER, b"d", DENIED),
        id="attribute that cannot be read",
    ),
    pytest.param(
        b'rsync: [sender] get_xattr_names: llistxattr("/d" (in etc),1024) failed: Permission denied (13)',
        (MessageKind.ATTRIBUTE, Side.SENDER, b"d", DENIED),
        id="attributes that cannot be listed",
    ),
    pytest.param(
        b"rsync: [generator] set_acl: xacl_set(d, ACL_TYPE_DEFAULT): Operation not supported (95)",
        (MessageKind.ACL, Side.GENERATOR, b"d", UNSUPPORTED),
        id="ACL, 3.5.0",
    ),
    pytest.param(
        b"rsync: [receiver] set_acl: sys_acl_set_file(.a.LODEls, ACL_TYPE_ACCESS): Operation not supported (95)",
        (MessageKind.ACL, Side.RECEIVER, b".a.LODEls", UNSUPPORTED),
        id="ACL, 3.2.7",
    ),
    pytest.param(
        b"cannot delete non-empty directory: d/e",
        (MessageKind.DELETION, Side.GENERATOR, b"d/e", "cannot delete non-empty directory"),
        id="directory that cannot be deleted",
    ),
    pytest.param(
        b"IO error encountered -- skipping file deletion",
        (MessageKind.DELETION_SKIPPED, Side.GENERATOR, None, "IO error encountered -- skipping file deletion"),
        id="nothing deleted",
    ),
]


def facts(message: Message) -> tuple[MessageKind, Side, bytes | None, str]:
    return message.kind, message.side, message.path, message.reason


@pytest.mark.parametrize(("line", "expected"), PRINTED)
def test_message_is_read(line: bytes, expected: tuple[MessageKind, Side, bytes | None, str]) -> None:
    found = parse(line, directory=DIRECTORY)
    assert found is not None
    assert facts(found) == expected
    assert parse(line + b"\n", directory=DIRECTORY) == found


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"sending incremental file list",
        b"rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1956)",
        b"rsync warning: some files vanished before they could be transferred (code 24) at main.c(1874)",
        b'rsync: [sender] send_files failed to open "/sub/shut" (in etc)',
        b"Number of files: 3",
    ],
)
def test_other_lines_are_none(line: bytes) -> None:
    assert parse(line) is None


def test_a_printable_line_keeps_its_path() -> None:
    found = parse('file has vanished: "/grün/a" (in etc)')
    assert found is not None
    assert (found.path, found.shown_path) == ("grün/a".encode(), "grün/a")


@pytest.mark.parametrize("name", ["<ff>x", r"a\tb", r"a\x1b", r"a\u202e"])
def test_a_line_made_printable_that_may_mean_two_names_has_no_path(name: str) -> None:
    found = parse(f'file has vanished: "/{name}" (in etc)')
    assert found is not None
    assert (found.path, found.shown_path) == (None, f"/{name}")


@pytest.mark.parametrize(
    "line",
    [
        b'file has vanished: "/../../etc/shadow" (in etc)',
        b'file has vanished: "//etc/shadow" (in etc)',
        b'file has vanished: "/a/./b" (in etc)',
        b'file has vanished: "/a\\#000b" (in etc)',
        b'file has vanished: "/%s" (in etc)' % (b"a" * 5000),
        b'rsync: [receiver] chown "/elsewhere/a" failed: Operation not permitted (1)',
        b'rsync: [receiver] chown "/stage/newer" failed: Operation not permitted (1)',
        b'rsync: [receiver] chown "/stage/new/../x" failed: Operation not permitted (1)',
    ],
)
def test_a_path_that_leads_out_of_the_tree_is_dropped(line: bytes) -> None:
    found = parse(line, directory=DIRECTORY)
    assert found is not None
    assert found.path is None


def test_a_receivers_path_needs_the_directory() -> None:
    line = b'rsync: [receiver] chown "/stage/new/a" failed: Operation not permitted (1)'
    found = parse(line)
    assert found is not None
    assert (found.path, found.shown_path) == (None, "/stage/new/a")


def test_a_name_that_looks_like_the_rest_of_a_message_is_read_as_a_name() -> None:
    name = b'a" (in etc): Permission denied (13)'
    found = parse(b'rsync: [sender] send_files failed to open "/' + name + b'" (in etc): Permission denied (13)')
    assert found is not None
    assert found.path == name


@pytest.mark.parametrize(
    "line",
    [
        b'rsync: [generator] link "/stage/new/3" => "x" => 0 failed: Too many links (31)',
        b'rsync: [generator] symlink "/stage/new/l" -> "a" -> "b" failed: File name too long (36)',
    ],
)
def test_a_pair_of_names_that_can_be_parted_in_two_ways_has_no_path(line: bytes) -> None:
    found = parse(line, directory=DIRECTORY)
    assert found is not None
    assert found.path is None


def test_the_shown_text_is_bounded_and_printable() -> None:
    found = parse(b'rsync: [sender] opendir "/%s\x1b[31m" (in etc) failed: %s (5)' % (b"n" * 3000, b"r" * 3000))
    assert found is not None
    assert len(found.shown_path) == SHOWN_PATH_LIMIT
    assert len(found.reason) == REASON_LIMIT
    escape = parse(b'rsync: [sender] opendir "/\x1b[31m" (in etc) failed: \x1b[2J (5)')
    assert escape is not None
    assert escape.shown_path.isprintable()
    assert escape.reason.isprintable()


def test_a_line_without_bounds_is_not_read() -> None:
    assert parse(b'file has vanished: "/%s" (in etc)' % (b"a" * LINE_LIMIT_BYTES)) is None


def test_a_hostile_line_is_read_in_bounded_time() -> None:
    # Every mark of the patterns, as often as a line has room for it.
    for part in (b'" => ', b'" -> "', b'" (in ', b'",', b": (1) ", b" failed: "):
        for begin in (b'rsync: [generator] link "', b'rsync: [sender] opendir "', b'rsync: rsync_xal_set: lsetxattr("'):
            parse(begin + part * ((LINE_LIMIT_BYTES - len(begin)) // len(part)))


def test_kinds_say_what_is_lost() -> None:
    assert MessageKind.UNREADABLE_DIRECTORY.is_missing_entry
    assert not MessageKind.ACL.is_missing_entry
    assert not MessageKind.RETRIED.is_missing_entry
    assert not MessageKind.DELETION_SKIPPED.is_missing_entry
