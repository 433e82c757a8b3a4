"""Whatever a file is called, its line is read back as its name, and whatever a line says, nothing leads out of the
tree."""

import re

from hypothesis import given
from hypothesis import strategies as st

from turku.core.filesystem.paths import is_entry_path
from turku.storage.rsync.change_log import Change, ChangeKind, ChangeLog, parse

NAMES = st.binary(min_size=1, max_size=60).filter(
    lambda name: not {b"/"[0], 0} & set(name) and name not in (b".", b"..")
)
TEMPTING = st.lists(
    st.sampled_from([b"\\", b"#", b"0", b"1", b"2", b"\n", b"|", b" ", b":", b"\r", b"\xff", b"*"]), min_size=1
)
PATHS = st.lists(NAMES | TEMPTING.map(b"".join), min_size=1, max_size=4).map(b"/".join)


def as_rsync_writes(name: bytes) -> bytes:
    """By rsync's log.c (filtered_fwrite), with --8-bit-output."""
    written = b""
    for place in range(len(name)):
        byte = name[place : place + 1]
        looks_escaped = re.match(rb"\\#[0-9]{3}", name[place : place + 5]) is not None
        is_control = byte != b"\t" and byte < b" "
        written += b"\\#%03o" % byte[0] if looks_escaped or is_control else byte
    return written


@given(
    PATHS,
    st.sampled_from([b":>f+++++++++", b":.f...p.....", b":cL+++++++++"]),
    st.sampled_from([b"", b" " * 32, b"0f" * 16]),
)
def test_a_name_is_read_back(path: bytes, item: bytes, checksum: bytes) -> None:
    line = parse(item + b"|" + checksum + b"|" + as_rsync_writes(path) + b"\n")
    assert line is not None
    assert line.path == path


@given(PATHS)
def test_a_deletion_is_read_back(path: bytes) -> None:
    line = parse(b":*deleting  |" + b" " * 32 + b"|" + as_rsync_writes(path) + b"/\n")
    assert line is not None
    assert (line.is_deleted, line.path) == (True, path)


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda rest: b":>f+++++++++||" + rest))
def test_any_line_is_read_or_refused(text: bytes) -> None:
    line = parse(text)
    assert line is None or line.path == b"." or is_entry_path(line.path)
    if line is not None:
        assert not line.path.startswith(b"/")
        assert b".." not in line.path.split(b"/")


@given(
    st.lists(
        st.builds(Change, PATHS, st.just(ChangeKind.CHANGED), is_file=st.booleans())
        | st.builds(Change, PATHS, st.just(ChangeKind.DELETED))
    )
)
def test_changes_come_back(wanted: list[Change]) -> None:
    with ChangeLog() as changes:
        for change in wanted:
            changes.add(change)
        assert list(changes) == wanted
