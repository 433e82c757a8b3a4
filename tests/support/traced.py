"""The system calls with which a program looks at the file system, as strace saw them, and which of them go by path.

argv = traced(directory, "turku-storage", "verify", ...)   the program under strace
calls(directory)                                           its own calls, not those of programs that it started
faults(each, volume)                                       why a call may follow a link below the volume
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"(\w+)\((.*)\)\s+= (-?\w+|\?)")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DESCRIPTOR = re.compile(r"\b(?:\d+|AT_FDCWD)<((?:[^<>\\]|\\.)*)>")
_OF_DESCRIPTOR = re.compile(r"/proc/self/fd/\d+")
_NO_FOLLOW = {"l" + name for name in ("getxattr", "setxattr", "listxattr", "removexattr")}
_NEVER_FOLLOW = {
    *("unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "rmdir", "symlink", "symlinkat"),
    *("readlink", "readlinkat", "mknod", "mknodat", "lstat", "lchown", "linkat"),
}
_BIRTHS = ("clone", "clone3", "fork", "vfork")
_WATCHED = f"trace=%file,openat2,chdir,execve,{','.join(_BIRTHS)}"


@dataclass(frozen=True)
class Call:
    """A system call as strace prints it."""

    name: str
    arguments: str

    @property
    def paths(self) -> list[str]:
        """Return the paths that it names."""
        found = [match.encode().decode("unicode_escape") for match in _TEXT.findall(self.arguments)]
        # What a link says is an answer.
        if self.name in ("readlink", "readlinkat"):
            return found[:1]
        # And of a new link, it is a text.
        return found[1:] if self.name in ("symlink", "symlinkat") else found

    @property
    def directories(self) -> list[str]:
        """Of the descriptors among the arguments."""
        return [match.encode().decode("unicode_escape") for match in _DESCRIPTOR.findall(self.arguments)]

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"


def traced(directory: Path, *argv: str | Path) -> list[str]:
    """The argument list that runs the program under strace, which writes into the directory."""
    options = ["-ff", "--decode-fds=path", "-s", "5000", "-qq", "-e", _WATCHED, "-e", "signal=none"]
    return ["strace", *options, "-o", f"{directory}/calls", *map(str, argv)]


def calls(directory: Path) -> Iterator[Call]:
    """The calls of the program's own threads, and of its children until they are other programs."""
    files = {int(file.suffix[1:]): file for file in sorted(directory.glob("calls.*"))}
    waiting = []
    for number, file in files.items():
        with file.open(errors="replace") as lines:
            first = lines.readline()
        if first.startswith("execve(") and "turku" in first.partition(",")[0]:
            waiting.append((number, True))
    while waiting:
        number, is_first = waiting.pop()
        traced = files[number].read_text(errors="replace").splitlines() if number in files else []
        for line in traced[1:] if is_first else traced:
            match = _LINE.match(line)
            if match is None:
                continue
            if match[1] in _BIRTHS:
                waiting.append((int(match[3]), False))
            elif match[1] != "execve":
                yield Call(match[1], match[2])
            elif match[3] == "0":
                # From here on it is another program.
                break


def faults(call: Call, volume: Path, *, databases: Path) -> str | None:
    """Return a sentence on how a link below the volume could lead the call astray, or None if none can.

    ``databases`` is the directory whose files SQLite opens, by path.
    """
    below = f"{volume}/"
    directories = [each for each in call.directories if each == str(volume) or each.startswith(below)]
    for path in call.paths:
        if path.startswith("/"):
            fault = _of_absolute(call, path, below, str(databases))
        elif directories and call.name != "openat2":
            fault = _of_name(call, path)
        else:
            fault = None
        if fault is not None:
            return fault
    return None


def _of_absolute(call: Call, path: str, below: str, databases: str) -> str | None:
    match = _OF_DESCRIPTOR.match(path)
    if match is not None:
        rest = path[match.end() :].lstrip("/")
        if not rest or (call.name in _NO_FOLLOW and "/" not in rest):
            return None
        return None if call.name in _NEVER_FOLLOW and "/" not in rest else "follows a name below a descriptor"
    if not path.startswith(below) or path.startswith(databases):
        return None
    if call.name != "openat2":
        return "goes by path"
    return None if "RESOLVE_NO_SYMLINKS" in call.arguments else "follows links"


def _of_name(call: Call, path: str) -> str | None:
    if path in ("", "."):
        return None
    if "/" in path or path == "..":
        return "goes by a path of several names"
    if call.name in _NEVER_FOLLOW and "AT_SYMLINK_FOLLOW" not in call.arguments:
        return None
    is_reported = any(word in call.arguments for word in ("AT_SYMLINK_NOFOLLOW", "O_NOFOLLOW", "O_EXCL"))
    return None if is_reported else "follows a link at the last name"


def programs(directory: Path) -> set[str]:
    """The programs that were started, by their names."""
    found = set()
    for file in directory.glob("calls.*"):
        for path in re.findall(r'^execve\("([^"]+)".*\) += 0$', file.read_text(errors="replace"), re.MULTILINE):
            found.add(Path(path).name)
    return found
