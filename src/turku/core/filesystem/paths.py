"""Paths as text: relative paths of a tree's entries (bytes), and the one rule for a path inside a directory."""

from typing import AnyStr


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the directory, empty for the tree's own, and the name in it."""
    directory, _slash, name = path.rpartition(b"/")
    return directory, name


def joined(directory: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory."""
    return directory + b"/" + name if directory else name


def is_entry_path(path: bytes) -> bool:
    """Return True when a path from an untrusted side can be that of an entry in a tree."""
    if not path or b"\0" in path:
        return False
    framed = b"/" + path + b"/"
    return not (b"//" in framed or b"/./" in framed or b"/../" in framed)


def is_within(path: AnyStr, directory: AnyStr) -> bool:
    """Return True when the path is the directory or lies below it. An empty directory is the whole of a tree.

    Both are absolute, or relative to the same tree, without ``..`` and needless slashes, and with links resolved where
    links matter.
    """
    slash = b"/" if isinstance(path, bytes) else "/"
    return not directory or path == directory or path.startswith(directory.rstrip(slash) + slash)
