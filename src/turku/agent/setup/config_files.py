"""The configuration that ``turku-agent setup`` writes. What an administrator's own files say is left to them."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from turku.core import durable
from turku.core.configuration import directory
from turku.core.setup import config_file
from turku.core.setup.host import Host
from turku.core.setup.step import FileStep
from turku.errors import InvalidValue, UsageError
from turku.policy import names, source_options
from turku.protocol import join_token
from turku.protocol.join_token import JoinToken

SETUP_FREQUENCY: Final = "daily, 0100-0500"
SETUP_RETENTION: Final = "last 7 days, earliest of 4 weeks, earliest of 6 months"
_MODE: Final = 0o600


@dataclass(frozen=True)
class MachineChoices:
    """The answers that the command line gives. None is the default, or what an earlier setup chose."""

    token: JoinToken | None
    sources: Mapping[str, Path]
    frequency: str | None = None
    retention: str | None = None
    names: Mapping[str, str | None] = field(default_factory=dict)
    """Values of ``unit_name``, ``service_name`` and ``environment_name``."""
    accept_profiles: Sequence[Path] = ()
    knows_token: bool = False
    """True if this host is registered with the token, so that what was edited since counts."""
    comes_back: bool = False
    """True for a machine that takes the identity of a lost one. Its sources may come back with a restore."""


@dataclass(frozen=True)
class MachineFiles:
    """The content of the files, and the coordinator's address by all files together."""

    content: dict[str, Any]
    sources: dict[str, dict[str, Any]]
    """The sources that the command line names, as their files have them."""
    declared: dict[str, Any]
    """All sources of this machine, of whichever file."""
    api_url: str
    token_digest: str = ""
    has_earlier: bool = False
    """True if the content was made from that of an earlier setup, with what was edited there."""

    def steps(self, config_dir: Path) -> list[FileStep]:
        """Return the steps that write the files."""
        main = FileStep(
            config_dir / "config.d" / config_file.FILE,
            durable.json_bytes(self.content),
            mode=_MODE,
            keeps_edits=self.has_earlier,
            purpose="the coordinator, and the names of this machine",
        )
        return [main, *(self._source_step(config_dir, name, options) for name, options in self.sources.items())]

    def _source_step(self, config_dir: Path, name: str, options: dict[str, Any]) -> FileStep:
        place = config_dir / "sources.d" / f"{name}.json"
        content = durable.json_bytes({name: options})
        return FileStep(place, content, mode=_MODE, purpose=f"backs up {options['path']}")


def parse_sources(texts: Sequence[str]) -> dict[str, Path]:
    """Return the directory of each source from words as ``etc=/etc``, or a bare path. Raises UsageError."""
    found: dict[str, Path] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator:
            name, path = text.strip("/").replace("/", "-") or "system", text
        try:
            names.source_name(name)
            for problem in source_options.problems({"path": path}):
                raise UsageError(f"--source {text}: {problem}", hint="for example --source etc=/etc")
        except InvalidValue as error:
            raise UsageError(f"--source {text}: {error.message}", hint="for example --source etc=/etc") from None
        if name in found:
            raise UsageError(f"--source {text}: there is another source {name}", hint="each has a name of its own")
        found[name] = Path(path)
    return found


def configuration(choices: MachineChoices, host: Host, config_dir: Path) -> MachineFiles:
    """Return the configuration that the choices make, over that of an earlier setup. Raises UsageError."""
    place = host.path(config_dir)
    for path in choices.sources.values():
        if not host.path(path).is_dir():
            raise UsageError(
                f"{path} is not a directory of this machine", hint="--source NAME=PATH names the right one"
            )
    files = config_file.read(place / "config.d")
    before = files.merged(files.earlier)
    token = join_token.in_force(choices.token, is_known=choices.knows_token, before=before)
    earlier = files.earlier_without(join_token.KEYS if token else ())
    content = files.own({"unit_name": socket.gethostname(), **earlier, **_chosen(choices, token)})
    merged = files.merged(content)
    if token is not None:
        join_token.require_address(token, merged["api_url"])
    if "api_url" not in merged:
        raise UsageError(
            "a join token is needed, which tells where the coordinator is",
            hint="on the coordinator: turku-api join-token create machine",
        )
    known = directory.read_directories([place / "sources.d"]).content
    if not choices.sources and not known and not merged.get("accept_profiles") and not choices.comes_back:
        raise UsageError("a source is needed, a directory that is backed up", hint="--source etc=/etc")
    sources = {name: _options(choices, name, path, known) for name, path in choices.sources.items()}
    for name, options in sources.items():
        for problem in source_options.problems(options):
            raise UsageError(f"source {name}: {problem}")
    token_digest = choices.token.digest() if choices.token is not None else ""
    declared = {**known, **sources}
    return MachineFiles(content, sources, declared, str(merged["api_url"]), token_digest, files.has_earlier)


def _options(choices: MachineChoices, name: str, path: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a source. Those that an earlier setup wrote stay, unless the command line has others."""
    found = known.get(name)
    before = dict(found) if isinstance(found, dict) else {}
    before["path"] = str(path)
    before["frequency"] = choices.frequency or before.get("frequency") or SETUP_FREQUENCY
    before["retention"] = choices.retention or before.get("retention") or SETUP_RETENTION
    return before


def _chosen(choices: MachineChoices, token: JoinToken | None) -> dict[str, Any]:
    found: dict[str, Any] = {name: text for name, text in choices.names.items() if text is not None}
    if token is not None:
        found |= token.configuration()
    if choices.accept_profiles:
        found["accept_profiles"] = [str(path) for path in choices.accept_profiles]
    return {key: value for key, value in found.items() if value}
