"""Names, lines and messages that a hostile rsync daemon makes up, all of it drawn from a ``random.Random``.

forged_messages.name(draw)       a name for the file list: lawful, leading out, of the storage's own, malformed
forged_messages.message(draw)    a message of the multiplexed stream, with its header
forged_messages.damaged(draw, data)  the bytes with one thing wrong
"""

import random
import struct
from collections.abc import Callable

MULTIPLEX_BASE = 7
DATA, ERROR_XFER, INFO, ERROR, WARNING, ERROR_SOCKET, LOG, CLIENT, ERROR_UTF8, REDO, STATS = range(11)
IO_ERROR, IO_TIMEOUT, NO_OPERATION, ERROR_EXIT = 22, 33, 42, 86
SUCCESS, DELETED, NO_SEND = 100, 101, 102
TEXTS = (ERROR_XFER, INFO, ERROR, WARNING, ERROR_SOCKET, LOG, CLIENT, ERROR_UTF8)
NUMBERS = (REDO, STATS, IO_ERROR, IO_TIMEOUT, NO_OPERATION, ERROR_EXIT, SUCCESS, NO_SEND)

LAWFUL_NAMES = (
    b"alpha",
    b"beta.txt",
    b"diary",
    b"directory",
    b"directory/gamma",
    b"directory/inner",
    b"directory/inner/delta",
    b"link",
)
"""Those of the machine's own source, each directory before what is in it."""
OTHER_MACHINE = b"22222222-2222-4222-8222-222222222222"
OUTSIDE = b"/tmp/turku-fuzz-absolute"
"""The absolute name of a file that nobody may make."""
_REACHING = (
    # What is there, as seen from a staging directory or a tree that is assembled, and from a tree without history.
    b"../../other.snapshots",
    b"../../../" + OTHER_MACHINE,
    b"../../../" + OTHER_MACHINE + b"/etc.snapshots/etc_20260101-000000_abcd/file",
    b"../other.snapshots",
    b"../../" + OTHER_MACHINE + b"/etc.snapshots",
    b"directory/../../../other.snapshots",
)
_LEADING_OUT = (
    *_REACHING,
    b"..",
    b"directory/../../../x",
    b"./../x",
    b"/",
    OUTSIDE,
    b"/" + OUTSIDE,
    b"link/file",
    b"directory/",
    b"directory/.",
    b"directory//gamma",
)
_OF_THE_STORAGE = (
    b".staging",
    b".assembling",
    b".fetch-list",
    b".in-place",
    b"latest",
    b"etc",
    b"etc.snapshots",
    b".etc.lock",
    b".trash-1-etc_20260101-000000_abcd",
    b".turku-link-000000000000",
    b".turku-nothing",
    b".~tmp~",
)
_FLOOD_MESSAGE_BYTES = 1000
_EXTREME = (b"\0", b"\x7f", b"\x80", b"\xff", b"\xfe")


def name(draw: random.Random) -> bytes:
    """A name, of up to 5,000 bytes."""
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: draw.choice(LAWFUL_NAMES),
        lambda: draw.choice(LAWFUL_NAMES),
        lambda: draw.choice(_LEADING_OUT),
        lambda: draw.choice(_OF_THE_STORAGE),
        lambda: draw.choice(LAWFUL_NAMES) + draw.choice(_EXTREME) + b"x",
        lambda: draw.choice((b"a", b"a/", b"../", b"\xc3\xa4", b"\n")) * draw.choice((60, 255, 256, 300, 1300)),
        lambda: draw.choice((b"#", b";", b"-", b":", b" ", b"\\#012", b"\\#057", b"\\#056\\#056/")) + b"name",
        lambda: b"first\n" + line(draw),
        lambda: draw.randbytes(draw.randrange(1, 40)),
        lambda: b"new %d" % draw.randrange(20),
        lambda: b"directory/new %d" % draw.randrange(20),
        lambda: b"",
    )
    return draw.choice(kinds)()[:5000]


def line(draw: random.Random) -> bytes:
    """A line that looks like one that the storage's own rsync prints of an entry, or like its statistics."""
    if draw.random() < 0.2:
        return _statistics(draw)
    itemized = draw.choice(
        (
            b"*deleting  ",
            b">f+++++++++",
            b">f.st......",
            b"hf+++++++++",
            b".f...p.....",
            b"cd+++++++++",
            b".d..t......",
            b"cL+++++++++",
            b"cD+++++++++",
            b".f         ",
            b"*deleting",
            b">f" + draw.randbytes(9).replace(b"\n", b" "),
        )
    )
    checksum = draw.choice((b"", b" " * 32, draw.randbytes(16).hex().encode(), b"0" * 16, b"f" * 33, b"|"))
    path = draw.choice((name(draw).replace(b"\n", b"\\#012"), name(draw)))
    return b":" + itemized + b"|" + checksum + b"|" + path + draw.choice((*(b"\n",) * 8, b"/\n", b"", b"\r\n", b"\0\n"))


def _statistics(draw: random.Random) -> bytes:
    label = draw.choice(
        (
            b"Number of files: %b (reg: %b)",
            b"Number of created files: %b (reg: %b)",
            b"Number of deleted files: %b (reg: %b)",
            b"Number of regular files transferred: %b",
            b"Total file size: %b bytes",
            b"Total transferred file size: %b bytes",
            b"Literal data: %b bytes",
            b"Total bytes received: %b",
            b"total size is %b  speedup is 1.00",
        )
    )
    number = draw.choice((b"0", b"-1", b"1", b"9" * 19, b"9" * 400, b"9" * 5000, b"x", "\u0663".encode(), b""))
    return label.replace(b"%b", number) + b"\n"


def framed(tag: int, payload: bytes) -> bytes:
    """A message with its header."""
    return struct.pack("<I", (MULTIPLEX_BASE + tag) << 24 | len(payload)) + payload


def text_message(draw: random.Random) -> bytes:
    """Return a message that a receiver prints, or a line of one that it takes for its own. The receiver goes on."""
    if draw.random() < 0.4:
        return framed(DELETED, _deleted(draw))
    payload = draw.choice((line(draw), line(draw), b"".join(line(draw) for _ in range(20)), _long(draw)))
    return framed(draw.choice((INFO, INFO, INFO, WARNING, CLIENT)), payload[:0xFFFFFF])


def message(draw: random.Random) -> bytes:
    """One message of any kind, or a flood of one."""
    tag = draw.choice((*TEXTS, INFO, INFO, INFO, DELETED, DELETED, *NUMBERS, draw.randrange(249)))
    if tag in TEXTS:
        payload = draw.choice(
            (line(draw), line(draw), name(draw), b"".join(line(draw) for _ in range(20)), _long(draw))
        )
    elif tag == DELETED:
        payload = _deleted(draw)
    else:
        payload = draw.choice((number(draw), number(draw), draw.randbytes(draw.choice((0, 1, 3, 8, 60)))))
    is_flood = draw.random() < 0.03 and len(payload) < _FLOOD_MESSAGE_BYTES
    return framed(tag, payload) * (draw.choice((100, 2000)) if is_flood else 1)


def _deleted(draw: random.Random) -> bytes:
    """A path that was deleted, with the NUL of a directory: a receiver prints a line of its own about it."""
    paths = (name(draw), draw.choice(LAWFUL_NAMES), draw.choice(_LEADING_OUT), draw.choice(_REACHING))
    return draw.choice(paths) + draw.choice((b"", b"\0"))


def _long(draw: random.Random) -> bytes:
    return draw.choice((b"x", b":", b"\0", b"\xff", b":>f+++++++++||")) * draw.choice((1000, 40_000, 200_000))


def number(draw: random.Random) -> bytes:
    """Four bytes of the kind that an index or a length has."""
    extremes = (0, 1, 2, 5, 100, -1, -2, -101, -(2**31), 2**31 - 1, 2**24)
    return struct.pack("<i", draw.choice((*extremes, draw.randrange(-(2**31), 2**31))))


def damaged(draw: random.Random, data: bytes) -> bytes:
    """The bytes with bits flipped, or a range deleted, doubled, moved, inserted or set to an extreme value."""
    if not data:
        return data
    length = draw.choice((1, 1, 2, 4, 4, 8, draw.randrange(1, len(data) + 1)))
    start = draw.randrange(len(data))
    end = min(start + length, len(data))
    before, within, after = data[:start], data[start:end], data[end:]
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: before + bytes(each ^ 1 << draw.randrange(8) for each in within) + after,
        lambda: before + after,
        lambda: before + within * draw.choice((2, 2, 3, 100)) + after,
        lambda: after + within + before,
        lambda: before + after[:length] + within + after[length:],
        lambda: before + draw.randbytes(draw.choice((1, 4, 16, 4096))) + within + after,
        lambda: before + number(draw) + after,
        lambda: before + draw.choice(_EXTREME) * len(within) + after,
        lambda: draw.randbytes(len(data)),
    )
    return draw.choice(kinds)()
