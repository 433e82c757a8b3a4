"""The agent's own files: secrets, locks and runtime files, which are in no backup, and which no restore touches.

``var_dir`` is the identity of this machine, the trust in its storages, and what a run needs. A snapshot may have that
of another agent, or of a machine that was lost. It must not replace that of the running agent.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from turku.agent.config.model import AgentConfig, SourceConfig
from turku.core.configuration import directory as configuration_directory
from turku.errors import RestoreFailed

SECRET_KEYS = frozenset({"machine_secret", "api_auth", "api_auth_secret"})
"""Keys of the configuration. A file of ``config.d`` that has one of them is in no backup."""
_LOCKS = ("turku-agent-identity", "turku-agent-ping", "turku-agent-restore", "turku-update-config")
_CONFIGURATION, _SOURCES = "config.d", "sources.d"


def excluded_directory(agent: AgentConfig) -> Path:
    """Return the directory of which backups have nothing but the directory itself."""
    return agent.state.var_dir


def excluded_files(agent: AgentConfig) -> list[Path]:
    """Return the files outside of ``var_dir`` that are in no backup: those with secrets, and locks."""
    locks = [] if agent.state.lock_dir.is_relative_to(agent.state.var_dir) else _locks(agent.state.lock_dir)
    return [*_secret_files(agent.config_dir / _CONFIGURATION), *locks]


def _locks(directory: Path) -> list[Path]:
    return [directory / f"{name}.lock" for name in _LOCKS]


def _secret_files(directory: Path) -> Iterator[Path]:
    """Yield the files of the directory that have a secret, and those that cannot be told not to have one."""
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return
    for path in entries:
        found = configuration_directory.read_one(path)
        if found is None or found.faults or SECRET_KEYS & found.content.keys():
            yield path


def withheld(agent: AgentConfig, sources: Sequence[SourceConfig]) -> dict[str, str]:
    """Return the sources that lie in the agent's own state and are never offered, by name, with the reasons."""
    own = Path(os.path.realpath(agent.state.var_dir))
    return {
        source.name: f"{source.path} is the agent's own state, which has its secrets and is never backed up"
        for source in sources
        if Path(os.path.realpath(source.path)).is_relative_to(own)
    }


def notes(agent: AgentConfig, source: SourceConfig) -> Iterator[str]:
    """Yield a sentence for each thing of the agent's own that a backup of the source does not have."""
    yield from withheld(agent, [source]).values()
    if is_below(source, excluded_directory(agent)):
        yield f"{agent.state.var_dir} is not backed up: it is the agent's own state, with its secrets"
    for path in excluded_files(agent):
        if is_below(source, path) and path.exists():
            yield f"{path} is not backed up: it is a secret or a lock of the agent"


def is_below(source: SourceConfig, path: Path) -> bool:
    """Return True for a path below the source's directory, symbolic links above it resolved."""
    base, found = Path(os.path.realpath(source.path)), Path(os.path.realpath(path.parent)) / path.name
    return found != base and found.is_relative_to(base)


@dataclass(frozen=True)
class OwnPaths:
    """The agent's own directories in a target, as paths relative to it."""

    sealed: frozenset[bytes] = frozenset()
    """Directories that stay exactly as they are."""
    kept: frozenset[bytes] = frozenset()
    """Directories in which entries are added, while those that are there stay as they are."""

    @property
    def names(self) -> frozenset[bytes]:
        return self.sealed | self.kept

    def is_sealed(self, path: bytes) -> bool:
        """Return True for a sealed directory and everything below it."""
        return any(each in self.sealed for each in _with_parents(path)) if self.sealed else False

    def is_kept(self, path: bytes) -> bool:
        """Return True for a directory whose entries are kept, and everything below it."""
        return any(each in self.kept for each in _with_parents(path)) if self.kept else False


NO_OWN_PATHS = OwnPaths()


def in_target(agent: AgentConfig, target: Path) -> OwnPaths:
    """Return the agent's own directories in the target of a restore.

    Raises RestoreFailed for a target that lies in a sealed one.
    """
    base = Path(os.path.realpath(target))
    sealed = [agent.state.var_dir, agent.config_dir / _CONFIGURATION]
    for directory in sealed:
        if base.is_relative_to(os.path.realpath(directory)):
            raise RestoreFailed(
                f"{target} belongs to the agent that runs here, and no restore writes into {directory}",
                hint="--to names another directory, from which you can copy",
            )
    return OwnPaths(
        frozenset(_relative(base, target, sealed)), frozenset(_relative(base, target, [agent.config_dir / _SOURCES]))
    )


def _relative(base: Path, target: Path, directories: Iterable[Path]) -> Iterator[bytes]:
    """Yield the directories relative to the target, by their own names and by where symbolic links lead."""
    for directory in directories:
        for top, path in ((base, Path(os.path.realpath(directory))), (base, directory), (target, directory)):
            if path.is_relative_to(top):
                yield os.fsencode(path.relative_to(top))


def _with_parents(path: bytes) -> Iterator[bytes]:
    while path:
        yield path
        path = path.rpartition(b"/")[0]
