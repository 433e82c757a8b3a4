"""Names that mean something to rsync, to its lists and filters, or to a shell, and names that can hardly be written.

``write`` makes a file of each below an open directory, ``content`` is its content.
"""

import os
from collections.abc import Iterable

FLAT: tuple[bytes, ...] = (
    *(b"#recovery#", b";note", b"#", b";", b"# ; comment"),
    *(b"-rf", b"--delete", b"--files-from=x", b"-", b"--"),
    *(b"- exclude", b"+ include", b". merge", b": dir-merge", b"!", b"H *", b"P *", b"R *", b"clear"),
    *(b" leading", b"trailing ", b"  ", b"\t", b"a b"),
    *(b"line\nbreak", b"line", b"line\\#012break", b"\n", b"\nbegins", b"ends\n", b"carriage\rreturn", b"\r"),
    *(b"*", b"**", b"?", b"[x]", b"[", b"]", b"[!a]", b"***", b"{a,b}"),
    *(b"\\", b"back\\slash", b"\\n", b"\\#012", b"\\#0", b"\\*", b"ends\\"),
    *(b"\xff\xfe", b"caf\xe9", "café".encode(), "cafe\u0301".encode(), b"\xc3", b"\x01\x1b[31m\x7f", "\u202e".encode()),
    *(b"x" * 255, b"\xff" * 255, b"#" * 255),
    *(
        b"host:path",
        b"host::module",
        b"rsync:",
        b"~",
        b"~root",
        b"$HOME",
        b"$(id)",
        b"`id`",
        b"'",
        b'"',
        b"a'b\"c",
        b"|",
        b"&",
    ),
    *(b"...", b".x", b"x.", b"..x", b"%", b"%n", b"%i|%C|%n", b":<f+++++++++|" + b"0" * 32 + b"|plain", b":*deleting"),
    b"plain",
)
LONG = b"/".join([b"d" * 199] * 19 + [b"#" * 199])
"""A path of nearly 4,000 bytes."""
NAMES: tuple[bytes, ...] = (*FLAT, *(b"#dir/" + name for name in FLAT[::7]), b"[*?]/[x]/;y", b" /\n/\\#012/-z", LONG)


def content(name: bytes, version: int = 0) -> bytes:
    return b"%d %d " % (version, len(name)) + name


def write(directory: int, names: Iterable[bytes] = NAMES, *, version: int = 0) -> None:
    """Make or replace the files. All have the same times, and a length that the version does not change."""
    for name in names:
        above = os.dup(directory)
        *parents, last = name.split(b"/")
        for parent in parents:
            try:
                os.mkdir(parent, dir_fd=above)
            except FileExistsError:
                pass
            inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY, dir_fd=above)
            os.close(above)
            above = inner
        descriptor = os.open(last, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=above)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content(name, version))
        os.close(above)


def read(directory: int, names: Iterable[bytes] = NAMES) -> dict[bytes, bytes]:
    """The content of each of these files that is there."""
    found = {}
    for name in names:
        above = os.dup(directory)
        try:
            *parents, last = name.split(b"/")
            for parent in parents:
                inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
                os.close(above)
                above = inner
            with os.fdopen(os.open(last, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=above), "rb") as file:
                found[name] = file.read()
        except FileNotFoundError:
            pass
        finally:
            os.close(above)
    return found
