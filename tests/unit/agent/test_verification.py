"""Comparing what was restored with what has to be: told of by rsync, or read."""

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import xxhash

from turku.agent.restore import result, verification
from turku.agent.restore.verification import Verification
from turku.core.filesystem import extended_attributes
from turku.errors import MalformedMessage
from turku.protocol.restore_messages import Base64Path, ManifestEntry, WirePath


def digest(content: bytes) -> bytes:
    return xxhash.xxh128(content).digest()


def entry(path: WirePath, content: bytes | None, *, is_sent: bool = True, target: str | None = None) -> ManifestEntry:
    return ManifestEntry(
        path,
        "file" if target is None else "link",
        0 if content is None else len(content),
        (0, 0),
        is_sent,
        None if content is None else digest(content),
        target,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[int]:
    """The directory of the test, open."""
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def compared(tree: int) -> Iterator[Verification]:
    found = Verification(tree, has_xxh128=True)
    yield found
    found.close()


def counts(found: Verification) -> tuple[int, int, int, int]:
    return found.verified, found.mismatched, found.unverifiable, found.missing


@pytest.mark.parametrize("is_manifest_first", [True, False])
def test_reports_of_rsync_count_whichever_comes_first(compared: Verification, is_manifest_first: bool) -> None:
    for path, content, received in ((b"good", b"1", b"1"), (b"bad", b"1", b"2")):
        steps = [
            lambda path=path, content=content: compared.expect(entry(path.decode(), content)),
            lambda path=path, received=received: compared.received(path, digest(received), 1),
        ]
        for step in steps if is_manifest_first else reversed(steps):
            step()
    compared.finish(repairs_links=False)
    assert counts(compared) == (1, 1, 0, 0)
    assert (compared.files, compared.size_bytes) == (2, 2)
    [problem] = compared.problems.named
    assert problem.startswith("bad is not what was backed up")


def attributed(path: str, content: bytes, attributes: bytes | None) -> ManifestEntry:
    return msgspec.structs.replace(entry(path, content), attributes=attributes)


@pytest.mark.parametrize("holds_attributes", [True, False])
def test_other_attributes_than_those_that_were_backed_up_are_named_or_counted(
    tree: int, tmp_path: Path, holds_attributes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("same", "other", "lost", "unknown"):
        (tmp_path / name).write_bytes(b"x")
    os.setxattr(tmp_path / "same", "user.comment", b"a note")
    expected = extended_attributes.digest_of(os.fsencode(tmp_path / "same"))
    assert expected is not None
    os.setxattr(tmp_path / "other", "user.comment", b"another note")
    os.setxattr(tmp_path / "unknown", "user.comment", b"another note")
    compared = Verification(tree, has_xxh128=True, holds_attributes=holds_attributes)
    for name, attributes in (("same", expected), ("other", expected), ("lost", expected), ("unknown", None)):
        compared.expect(attributed(name, b"x", attributes))
        compared.received(name.encode(), digest(b"x"), 1)
    compared.finish(repairs_links=False)
    compared.close()
    if holds_attributes:
        assert counts(compared) == (4, 2, 0, 0)
        assert [line.split()[0] for line in compared.problems.named] == ["other", "lost"]
        assert "has other extended attributes or ACLs" in compared.problems.named[0]
    else:
        assert counts(compared) == (4, 0, 0, 0)
        assert compared.problems.named == []
        assert "of 2 files cannot be set here" in caplog.text


def test_a_machine_s_own_label_is_no_other_attribute(tree: int, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can set a label")
    (tmp_path / "file").write_bytes(b"x")
    os.setxattr(tmp_path / "file", "user.comment", b"a note")
    expected = extended_attributes.digest_of(os.fsencode(tmp_path / "file"))
    os.setxattr(tmp_path / "file", extended_attributes.LABEL, b"a label")
    compared = Verification(tree, has_xxh128=True, holds_attributes=True)
    compared.expect(attributed("file", b"x", expected))
    compared.received(b"file", digest(b"x"), 1)
    compared.finish(repairs_links=False)
    compared.close()
    assert compared.problems.named == []


def test_existing_files_are_read(compared: Verification, tmp_path: Path) -> None:
    (tmp_path / "same").write_bytes(b"same")
    (tmp_path / "other").write_bytes(b"OTHER")
    for path, content in (("same", b"same"), ("other", b"other")):
        compared.expect(entry(path, content, is_sent=False))
    compared.finish(repairs_links=False)
    assert counts(compared) == (1, 1, 0, 0)
    assert "--compare-contents" in compared.problems.named[0]


def test_files_that_rsync_did_not_report_are_read_at_the_end(compared: Verification, tmp_path: Path) -> None:
    (tmp_path / "two\nlines").write_bytes(b"content")
    compared.expect(entry("two\nlines", b"content"))
    compared.expect(entry("nowhere", b"content"))
    compared.finish(repairs_links=False)
    assert counts(compared) == (1, 0, 0, 1)
    assert compared.problems.named == ["nowhere is not there"]


def test_without_a_checksum_of_the_backup_nothing_is_verified(compared: Verification) -> None:
    compared.expect(entry("unknown", None))
    compared.received(b"unknown", digest(b"1"), 1)
    compared.finish(repairs_links=False)
    assert counts(compared) == (0, 0, 1, 0)


def test_an_rsync_without_xxh128_is_not_believed(tmp_path: Path, tree: int) -> None:
    (tmp_path / "file").write_bytes(b"1")
    found = Verification(tree, has_xxh128=False)
    found.expect(entry("file", b"1"))
    found.received(b"file", b"\0" * 16, 1)
    found.finish(repairs_links=False)
    assert counts(found) == (1, 0, 0, 0)
    found.close()


def test_a_link_is_made_as_it_was_where_rsync_changed_it(compared: Verification, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "link").symlink_to("etc/passwd")
    os.utime(tmp_path / "directory", (1, 1))
    compared.expect(entry("directory/link", None, target="/etc/passwd"))
    compared.finish(repairs_links=True)
    assert (tmp_path / "directory" / "link").readlink() == Path("/etc/passwd")
    assert (tmp_path / "directory").stat().st_mtime == 1
    assert list((tmp_path / "directory").iterdir()) == [tmp_path / "directory" / "link"]
    assert counts(compared) == (0, 0, 0, 0)


def test_it_is_reported_where_it_may_not_be_made(compared: Verification, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    compared.expect(entry("link", None, target="there"))
    compared.finish(repairs_links=False)
    assert counts(compared) == (0, 1, 0, 0)


def test_no_link_is_made_beyond_a_link(compared: Verification, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "link").symlink_to("mine")
    (tmp_path / "way").symlink_to(outside)
    compared.expect(entry("way/link", None, target="/etc/shadow"))
    compared.finish(repairs_links=True)
    assert (outside / "link").readlink() == Path("mine")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\0b", Base64Path(b"../\xff"), "x" * 300])
def test_a_path_that_leads_out_ends_it(compared: Verification, path: WirePath) -> None:
    with pytest.raises(MalformedMessage):
        compared.expect(entry(path, b"1"))


def test_memory_is_bounded_when_files_never_come(
    compared: Verification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_WAITING_LIMIT", 10)
    monkeypatch.setattr(result, "NAMED_LIMIT", 5)
    for number in range(100):
        compared.expect(entry(str(number), b"1"))
        compared.received(f"other {number}".encode(), digest(b"1"), 1)
        assert len(compared._expected) <= 11
        assert len(compared._received) <= 11
    compared.finish(repairs_links=False)
    assert compared.missing == 100
    assert len(compared.problems.named) == 5
    assert compared.problems.count == 100


def test_memory_is_bounded_by_bytes_too(
    compared: Verification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_WAITING_LIMIT_BYTES", 10_000)
    long = "/".join(["x" * 200] * 15)
    for number in range(20):
        compared.expect(entry(f"{long}/{number}", b"1"))
        compared.received(f"{long}/other {number}".encode(), digest(b"1"), 1)
    assert len(compared._expected) <= 3
    assert len(compared._received) <= 3


def test_files_that_come_long_after_they_were_named_are_compared_all_the_same(
    compared: Verification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In one large directory rsync names all before it sends the first.
    monkeypatch.setattr(verification, "_WAITING_LIMIT", 10)
    for number in range(100):
        compared.expect(entry(str(number), b"1"))
    for number in range(100):
        (tmp_path / str(number)).write_bytes(b"1")
        compared.received(str(number).encode(), digest(b"1"), 1)
    compared.finish(repairs_links=False)
    assert counts(compared) == (100, 0, 0, 0)
    assert compared.problems.named == []


def test_links_take_no_memory(compared: Verification, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        for number in range(5000):
            compared.expect(entry(str(number), None, target="x" * 4000))
        assert tracemalloc.get_traced_memory()[0] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_no_link_is_longer_than_a_link_can_be(compared: Verification) -> None:
    with pytest.raises(MalformedMessage):
        compared.expect(entry("link", None, target="x" * 4096))


def test_existing_files_are_read_by_way_of_no_link(compared: Verification, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"guess")
    (tmp_path / "way").symlink_to(outside)
    compared.expect(entry("way/secret", b"guess", is_sent=False))
    compared.finish(repairs_links=False)
    assert compared.verified == 0


def test_a_special_file_of_another_kind_is_named(compared: Verification, tmp_path: Path) -> None:
    (tmp_path / "pipe").write_bytes(b"")
    compared.expect(ManifestEntry("pipe", "fifo", 0, (0, 0), is_sent=False, checksum=None))
    compared.finish(repairs_links=False)
    assert compared.mismatched == 1


@pytest.mark.parametrize("is_sent", [True, False])
def test_a_file_that_is_named_again_is_verified_once(compared: Verification, tmp_path: Path, is_sent: bool) -> None:
    (tmp_path / "file").write_bytes(b"1")
    for _ in range(3):
        compared.expect(entry("file", b"1", is_sent=is_sent))
    if is_sent:
        compared.received(b"file", digest(b"1"), 1)
        compared.expect(entry("file", b"1"))
        compared.received(b"file", digest(b"1"), 1)
    compared.finish(repairs_links=False)
    assert counts(compared) == (1, 0, 0, 0)
