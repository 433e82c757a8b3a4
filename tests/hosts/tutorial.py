"""The tutorial, followed by the letter: its commands are read from the page, and typed on hosts.

``make tutorial`` writes what they printed back into the page.
"""

import difflib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tests.hosts import terminal
from tests.hosts.fleet import HOSTS, VOLUME
from tests.hosts.host import Host, Network
from tests.hosts.volume import Volume
from tests.support.markdown import REPOSITORY

PAGE = REPOSITORY / "docs" / "tutorial.md"
RECORD = "followed.json"
_STEP = re.compile(rf"^({'|'.join(HOSTS)})# (.+)$")
_TOKEN = re.compile(r"turku-(machine|storage)-[A-Za-z0-9_-]{40,}")
_SHORTENED = re.compile(r"turku-(machine|storage)-[A-Za-z0-9_-]*\.\.\.")
_TOKEN_SHOWN_CHARACTERS = 24
_VARYING = re.compile(
    r"\((\w+ )?\d\d:\d\d\)|SHA256:\S+|password \S+|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\w*_?\d{8}-\d{6}_[0-9a-f]{4}(\.json)?"
    r"|turku-(machine|storage)-\S+|[\d.,:]+( ?[KMGT]i?B)?|\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) | (s|min|h|d)\b|ago|\ba moment\b"
)
_NOW_AND_THEN = ("waiting for storage", "storage storage:", "backup_session:", "restored ")
"""The beginnings of lines that depend on the moment: what is followed of a journal, and progress."""
_ANSWERS = {r"\[[yY]/[nN]\]:? ?": "y", r"\[[^]\n]*\]: ": ""}
_LONGEST_SECONDS = 200.0


class Step(msgspec.Struct, frozen=True):
    """A command that the page shows, the lines it printed, and the seconds that it took."""

    host: str
    command: str
    output: tuple[str, ...]
    seconds: float = 0.0


@dataclass(frozen=True)
class Followed:
    """The steps as they went, and the hosts after them."""

    directory: Path
    steps: tuple[Step, ...]

    def changes(self, host: str) -> Path:
        """Return what the tutorial changed on a host, as a layer."""
        return self.directory / host / "changes"

    @property
    def volume_image(self) -> Path:
        """The disk of the storage."""
        return self.directory / "volume" / "volume.ext4"


def steps(page: str) -> Iterator[Step]:
    """Yield the commands of the page that have a host's name as their prompt, each with its output there."""
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        lines = block.splitlines()
        starts = [index for index, line in enumerate(lines) if _STEP.match(line)]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            host, command = lines[start].split("# ", 1)
            yield Step(host, command, tuple(lines[start + 1 : end]))


def follow(directory: Path) -> None:
    """Type the commands of the page on bare hosts, and leave the hosts in the directory, stopped."""
    done: list[Step] = []
    tokens: dict[str, str] = {}
    with ExitStack() as stack:
        network = stack.enter_context(Network(HOSTS))
        volume = stack.enter_context(Volume(directory / "volume"))
        hosts = {}
        for name, release in HOSTS.items():
            binds = {VOLUME: volume.mount_point} if name == "storage" else None
            hosts[name] = stack.enter_context(Host(name, [release.root], network, directory, binds=binds))
            hosts[name].copy_in(*release.packages("turku-api", "turku-storage", "turku-agent"))
        for step in steps(PAGE.read_text()):
            command = _with_tokens(step.command, tokens)
            began = time.monotonic()
            exit_code, shown = _typed(hosts[step.host], command)
            assert exit_code == 0, f"{step.host}# {command}\n{shown}"
            tokens |= {found[1]: found[0] for found in _TOKEN.finditer(shown)}
            # Nobody reads what apt prints.
            output = () if step.command.startswith("apt ") else tuple(_readable(shown))
            done.append(Step(step.host, step.command, output, round(time.monotonic() - began, 1)))
    (directory / RECORD).write_bytes(msgspec.json.encode(done))


def _with_tokens(command: str, tokens: Mapping[str, str]) -> str:
    """Return the command of the page with the tokens of this run, by the kind of each."""
    return _SHORTENED.sub(lambda shortened: tokens.get(shortened[1], shortened[0]), command)


def _typed(host: Host, command: str) -> tuple[int, str]:
    return terminal.typed(host.arguments(command), _ANSWERS, timeout_seconds=_LONGEST_SECONDS)


def _readable(shown: str) -> list[str]:
    """Return the lines for the page, with the secrets of this run shortened."""
    text = _TOKEN.sub(lambda token: f"{token[0][:_TOKEN_SHOWN_CHARACTERS]}...", shown)
    return text.rstrip().splitlines()


def read(directory: Path) -> Followed:
    """Return the record that ``follow`` left in the directory."""
    return Followed(directory, msgspec.json.decode((directory / RECORD).read_bytes(), type=tuple[Step, ...]))


def written(page: str, run: Sequence[Step]) -> str:
    """Return the page with what the commands printed in this run. The output of apt is left out."""
    for shown, now in zip(list(steps(page)), run, strict=True):
        prompt = f"{shown.host}# {shown.command}"
        before = "\n".join((prompt, *shown.output))
        assert page.count(f"{before}\n") == 1, before
        page = page.replace(f"{before}\n", "\n".join((prompt, *now.output)) + "\n")
    return page


def difference(step: Step, run: Step) -> str:
    """Return the lines that only the page or only a run has, but for numbers, ids, times and repeated lines."""
    return "\n".join(line for line in difflib.ndiff(_essence(step.output), _essence(run.output)) if line[0] in "+-")


def _essence(lines: Iterable[str]) -> list[str]:
    """Return the different lines without what differs from run to run, such as the order of sources."""
    told = (line for line in lines if not line.startswith(_NOW_AND_THEN))
    return sorted({" ".join(_VARYING.sub("#", line).split()) for line in told})
