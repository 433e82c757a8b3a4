"""The digest of extended attributes and ACLs: what counts, and that nothing else does."""

import errno
import os
from pathlib import Path

import pytest

from turku.core.filesystem import extended_attributes
from turku.core.filesystem.extended_attributes import (
    ACCESS_ACL,
    DEFAULT_ACL,
    acl_of_rsync,
    digest,
    digest_of,
    pairs,
    path_of,
)

ACL = bytes.fromhex("0200000001000600ffffffff02000600d204000004000400ffffffff10000600ffffffff20000400ffffffff")
"""``user::rw-``, ``user:1234:rw-``, ``group::r--``, ``mask::rw-``, ``other::r--``, as the kernel has it."""


class Kept:
    """The attributes of one file of a made-up file system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.attributes: dict[str, bytes] = {}
        self.listings = 0
        monkeypatch.setattr(os, "listxattr", self._list)
        monkeypatch.setattr(os, "getxattr", self._get)

    def _list(self, _target: object, *, follow_symlinks: bool = True) -> list[str]:
        self.listings += 1
        return list(self.attributes)

    def _get(self, _target: object, name: str, *, follow_symlinks: bool = True) -> bytes:
        return self.attributes[name]

    def digest(self, faked_mode: int | None = None) -> bytes | None:
        return digest(pairs(0, extended_attributes.names(0), faked_mode=faked_mode))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(monkeypatch)


def test_nothing_has_no_digest_and_costs_one_call(kept: Kept) -> None:
    assert digest_of(0) is None
    assert kept.listings == 1


def test_names_and_values_count_and_their_order_does_not(kept: Kept) -> None:
    kept.attributes = {"user.a": b"1", "trusted.b": b"2"}
    first = kept.digest()
    kept.attributes = {"trusted.b": b"2", "user.a": b"1"}
    assert kept.digest() == first
    for other in ({"user.a": b"1"}, {"user.a": b"1", "trusted.b": b"3"}, {"user.a": b"12", "trusted.b": b""}):
        kept.attributes = other
        assert kept.digest() not in (first, None)


def test_attributes_that_a_file_system_makes_up_do_not_count(kept: Kept) -> None:
    kept.attributes = {"btrfs.compression": b"zstd", "system.nfs4_acl": b"x", "user.rsync.%stat": b"100644 0,0 5:5"}
    kept.attributes["trusted.SGI_ACL_FILE"] = b"an ACL once more"
    assert kept.digest() is None
    kept.attributes["security.selinux"] = b"a label"
    assert digest_of(0, without=["security.selinux"]) is None
    assert digest_of(0) is not None


def test_an_acl_that_says_no_more_than_the_mode_is_none(kept: Kept) -> None:
    kept.attributes = {ACCESS_ACL: bytes.fromhex("0200000001000600ffffffff04000400ffffffff20000400ffffffff")}
    assert kept.digest() is None
    # With a mask that takes nothing away.
    kept.attributes = {
        ACCESS_ACL: bytes.fromhex("0200000001000600ffffffff04000400ffffffff10000400ffffffff20000400ffffffff")
    }
    assert kept.digest() is None
    kept.attributes = {ACCESS_ACL: ACL}
    assert kept.digest() is not None
    # What a new file in a directory gets is more than any mode says.
    kept.attributes = {DEFAULT_ACL: bytes.fromhex("0200000001000600ffffffff04000400ffffffff20000400ffffffff")}
    assert kept.digest() is not None


def test_the_storage_s_own_attributes_of_a_file_that_rsync_keeps_for_a_machine_do_not_count(kept: Kept) -> None:
    kept.attributes = {"user.a": b"1"}
    machines = kept.digest()
    kept.attributes |= {
        "user.rsync.%stat": b"100644 0,0 5:5",
        "security.selinux": b"of the storage",
        ACCESS_ACL: ACL,
        DEFAULT_ACL: ACL,
    }
    assert kept.digest(faked_mode=0o644) == machines


def test_attributes_that_the_storage_may_not_set_count_as_on_the_machine(kept: Kept) -> None:
    kept.attributes = {"security.capability": b"x", "trusted.t": b"y", ACCESS_ACL: ACL}
    machines = kept.digest()
    kept.attributes = {
        "user.rsync.security.capability": b"x",
        "user.rsync.trusted.t": b"y",
        "user.rsync.%aacl": bytes.fromhex("80000000040000000600000080000000d204000006000080"),
    }
    assert kept.digest(faked_mode=0o664) == machines
    # rsync leaves the mask out too, where the mode has it.
    kept.attributes["user.rsync.%aacl"] = bytes.fromhex("80000000040000008000000080000000d204000006000080")
    assert kept.digest(faked_mode=0o664) == machines
    assert kept.digest(faked_mode=0o640) != machines


@pytest.mark.parametrize("value", [b"", b"x", b"\0" * 15, b"\0" * 17, b"\2\0\0\0" + b"\0" * 7, b"\1\0\0\0" + b"\0" * 8])
def test_a_value_that_is_no_acl_counts_as_it_is(kept: Kept, value: bytes) -> None:
    for name in ("user.rsync.%aacl", "user.rsync.%dacl", ACCESS_ACL, DEFAULT_ACL):
        kept.attributes = {name: value}
        kept.digest(faked_mode=0o644)
        kept.digest()
    assert acl_of_rsync(b"x", 0o644, is_access=True) == b"x"


def test_a_file_system_skipped_attributes_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> list[str]:
        raise OSError(errno.ENOTSUP, "none here")

    monkeypatch.setattr(os, "listxattr", refuse)
    assert digest_of(0) is None


def test_an_attribute_that_goes_meanwhile_is_none(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_arguments: object, **_options: object) -> bytes:
        raise OSError(errno.ENODATA, "gone")

    monkeypatch.setattr(os, "getxattr", gone)
    kept.attributes = {"user.a": b"1"}
    assert digest_of(0) is None


def test_files_directories_and_links_are_read_without_following(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.setxattr(tmp_path / "file", "user.a", b"1")
    (tmp_path / "link").symlink_to("file")
    directory = os.open(tmp_path, os.O_RDONLY)
    file = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert digest_of(path_of(directory, b"file")) == digest_of(file) is not None
        assert digest_of(path_of(directory, b"link")) is None
        assert digest_of(directory) is None
        if os.geteuid() == 0:
            os.setxattr(tmp_path / "link", "trusted.a", b"1", follow_symlinks=False)
            assert digest_of(path_of(directory, b"link")) is not None
    finally:
        os.close(file)
        os.close(directory)
