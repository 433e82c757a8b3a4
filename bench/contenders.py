"""Turku and what people would pick instead, each able to do the same: back up a tree, and give it back.

The peers write to a local repository, with nothing in between, or through ssh (``Server``). Turku goes all its way:
checkin at a coordinator, ssh to a real sshd, rsync through the tunnel, snapshot, retention, report. The peers run as
their manuals begin: restic and borg encrypt, compress and find repeated content, and rsnapshot is rsync with hard
links.
"""

import os
import platform
import shlex
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.support.fleet import Fleet

from turku.core import command
from turku.demo import programs

_TIMEOUT_SECONDS = 1800.0
_PASSWORD = "of a benchmark"
STRATEGIES = {"first": "full", "unchanged": "unchanged", "changed": "incremental"}
"""The strategy of Turku that each step measures. A run of another strategy is no figure of that step."""


@dataclass(frozen=True)
class Server:
    """A host behind ssh on which peers keep repositories, over sftp or with a borg of its own."""

    port: int
    user: str
    ssh: tuple[str, ...]
    """The argument list of an ssh with its options, without a destination."""

    @property
    def sftp(self) -> str:
        """The command that leads to its sftp."""
        return shlex.join((*self.ssh, "-p", str(self.port), "-l", self.user, "127.0.0.1", "-s", "sftp"))


class Contender(ABC):
    """A program that backs up ``tree`` into ``directory``. Each object is used once, begun by ``prepare``."""

    name: str

    def __init__(self, directory: Path, tree: Path) -> None:
        self.directory = directory
        self.tree = tree

    @abstractmethod
    def prepare(self) -> None:
        """Make an empty repository."""

    def make_due(self) -> None:  # noqa: B027  (most need nothing)
        """Whatever somebody else does before the next backup."""

    keeps: Collection[str] = ("acls", "attributes", "hard_links")
    """The properties that a restore brings back, besides content, owner, mode and times."""

    @abstractmethod
    def back_up(self) -> None:
        """Make a snapshot."""

    def require_path(self, step: str) -> None:  # noqa: B027  (most have one way only)
        """Raise AssertionError when the last backup did not take the way that the step is named after."""

    @abstractmethod
    def restore(self, target: Path, path: str = "") -> Path:
        """Restore the newest snapshot below ``target``, or one file of it, and return the path that was restored."""

    @property
    def kept_in(self) -> tuple[Path, ...]:
        """The directories that hold the backups."""
        return (self.directory / "repository",)

    def _run(self, *argv: str | Path, environment: Mapping[str, str] | None = None, at: Path | None = None) -> bytes:
        completed = command.run(
            argv,
            timeout_seconds=_TIMEOUT_SECONDS,
            extra_environment=environment,
            working_directory=at,
            capture_limit_bytes=64 * 1024 * 1024,
        )
        return completed.stdout


class Turku(Contender):
    """The installed commands, with a storage that the fleet has already. ``configuration`` is the agent's."""

    name = "turku"
    keeps: Collection[str] = ("acls", "attributes", "hard_links", "holes")
    options: Mapping[str, Any] = MappingProxyType({})
    """Of the source, beside its path."""

    def __init__(self, directory: Path, tree: Path, fleet: Fleet, **configuration: Any) -> None:
        super().__init__(directory, tree)
        self._fleet = fleet
        self._configuration = configuration
        self._unit = directory.name

    def prepare(self) -> None:
        self.machine = self._fleet.machine(
            self._unit, {"tree": {"path": str(self.tree), **self.options}}, **self._configuration
        )
        self.storage = self._fleet.storage_of(self.machine)

    def make_due(self) -> None:
        self._fleet.make_due(self.machine)

    def back_up(self) -> None:
        before = self._names()
        self.machine.ping()
        if self._names() == before:
            raise AssertionError("no snapshot was made")

    def require_path(self, step: str) -> None:
        wanted = STRATEGIES.get(step)
        if wanted is None:
            return
        [(strategy, reason)] = self._fleet.query(
            "SELECT r.strategy, r.strategy_reason FROM backups_backuprun r JOIN backups_source s ON s.id = r.source_id"
            " JOIN fleet_machine m ON m.id = s.machine_id WHERE m.uuid = ? ORDER BY r.id DESC LIMIT 1",
            self._fleet.coordinator.key(self.machine.uuid),
        )
        if strategy != wanted:
            raise AssertionError(f"step {step!r} is to measure {wanted!r} runs, this one was {strategy!r}: {reason}")

    def restore(self, target: Path, path: str = "") -> Path:
        # It compares each file with the storage's catalog itself.
        programs.run(
            *("turku-agent", "restore", "--config-dir", self.machine.config_dir, "--yes", "--to", target, "tree"),
            *((path,) if path else ()),
        )
        return target / path

    @property
    def kept_in(self) -> tuple[Path, ...]:
        volume = self.storage.volume
        return (volume / self.machine.uuid, *volume.glob(f".*/{self.machine.uuid}"))

    @property
    def _snapshots_dir(self) -> Path:
        return self.storage.machine_directory(self.machine.uuid) / "tree.snapshots"

    def _names(self) -> set[str]:
        # Each snapshot has its record beside it.
        return {path.name for path in self._snapshots_dir.glob("tree_*.json")}


class TurkuWithoutProperties(Turku):
    """The same, of a source that leaves out what costs more than content, owner, mode and times do."""

    name = "without"
    keeps = ()
    options = MappingProxyType({"not_preserved": ["acls", "attributes", "hard_links", "holes"]})


class Peer(Contender):
    """Somebody else's program, with a repository in ``directory`` that is reached by ``server`` where there is one."""

    def __init__(self, directory: Path, tree: Path, server: Server | None = None) -> None:
        super().__init__(directory, tree)
        self._server = server


class Restic(Peer):
    """Restic with its defaults: encrypted and compressed automatically. The cache is its own, kept between backups."""

    name = "restic"

    @property
    def _environment(self) -> dict[str, str]:
        repository = self.directory / "repository"
        return {
            "RESTIC_REPOSITORY": f"sftp:server:{repository}" if self._server else str(repository),
            "RESTIC_PASSWORD": _PASSWORD,
            "RESTIC_CACHE_DIR": str(self.directory / "cache"),
        }

    def _restic(self, *argv: str | Path) -> None:
        options = ("-o", f"sftp.command={self._server.sftp}") if self._server else ()
        self._run("restic", *options, *argv, environment=self._environment, at=self.tree)

    def prepare(self) -> None:
        self._restic("init", "--quiet")

    def back_up(self) -> None:
        self._restic("backup", "--quiet", ".")

    def restore(self, target: Path, path: str = "") -> Path:
        include = ("--include", f"/{path}") if path else ()
        self._restic("restore", "latest", "--target", target, *include)
        return target / path


class Borg(Peer):
    """Its quick start: the key in the repository, lz4."""

    name = "borg"
    _made = 0

    @property
    def _environment(self) -> dict[str, str]:
        repository, server = self.directory / "repository", self._server
        return {
            "BORG_REPO": f"ssh://{server.user}@127.0.0.1:{server.port}{repository}" if server else str(repository),
            "BORG_RSH": shlex.join(server.ssh) if server else "ssh",
            "BORG_PASSPHRASE": _PASSWORD,
            "BORG_BASE_DIR": str(self.directory / "base"),
        }

    def prepare(self) -> None:
        self._run("borg", "init", "--encryption=repokey-blake2", environment=self._environment)

    def back_up(self) -> None:
        self._made += 1
        self._run("borg", "create", f"::{self._made}", ".", environment=self._environment, at=self.tree)

    def restore(self, target: Path, path: str = "") -> Path:
        target.mkdir()
        paths = (path,) if path else ()
        self._run("borg", "extract", f"::{self._made}", *paths, environment=self._environment, at=target)
        return target / path


class Rsnapshot(Contender):
    """Rsnapshot with ``link_dest``, as its manual recommends on Linux. Rsync restores, as rsnapshot has no command."""

    name = "rsnapshot"
    keeps = ()

    def prepare(self) -> None:
        repository = self.directory / "repository"
        lines = {
            "config_version": "1.2",
            "snapshot_root": f"{repository}/",
            "no_create_root": "0",
            "cmd_rsync": programs.find("rsync") or "/usr/bin/rsync",
            "retain": "alpha\t10",
            "link_dest": "1",
            # Its own, without --relative: the tree alone, as the others have it.
            "rsync_long_args": "--delete --numeric-ids --delete-excluded",
            "verbose": "1",
            "lockfile": str(self.directory / "lock"),
            "backup": f"{self.tree}/\t./",
        }
        self._file.write_text("".join(f"{name}\t{value}\n" for name, value in lines.items()))

    @property
    def _file(self) -> Path:
        return self.directory / "rsnapshot.conf"

    def back_up(self) -> None:
        self._run("rsnapshot", "-c", self._file, "alpha")

    def restore(self, target: Path, path: str = "") -> Path:
        newest = self.directory / "repository" / "alpha.0"
        if path:
            target.mkdir()
            self._run("rsync", "-a", "--relative", f"{newest}/./{path}", f"{target}/")
        else:
            self._run("rsync", "-a", f"{newest}/", f"{target}/")
        return target / path


PEERS: tuple[type[Contender], ...] = (Restic, Borg, Rsnapshot)


def running_parts(fleet: Fleet) -> dict[str, int]:
    """The processes of a fleet that serve a machine's, by what they are."""
    found = {"storage": fleet.sshds["primary"].pid, "coordinator": fleet.coordinator.pid}
    return {name: pid for name, pid in found.items() if pid is not None}


def require() -> None:
    """Raise CommandFailed unless the peers' programs are there."""
    missing = [peer.name for peer in PEERS if programs.find(peer.name) is None]
    if missing:
        from turku.errors import CommandFailed

        raise CommandFailed(
            f"not installed: {', '.join(missing)}", hint="packaging/require-debian-packages.sh bench installs them"
        )


def versions() -> dict[str, str]:
    """Return the version of each program, by name."""
    found = {}
    for name, argv in {
        "restic": ["restic", "version"],
        "borg": ["borg", "--version"],
        "rsnapshot": ["dpkg-query", "--show", "--showformat=${Version}", "rsnapshot"],
        "rsync": ["rsync", "--version"],
        "ssh": ["ssh", "-V"],
    }.items():
        completed = command.run(argv, timeout_seconds=30, check=False)
        lines = [*completed.stdout.decode("utf-8", "replace").splitlines(), *completed.last_lines]
        words = lines[0].split() if lines else ["?"]
        found[name] = next((word.strip(",") for word in words if any(c.isdigit() for c in word)), words[-1])
    return found


def machine() -> str:
    """Processor, memory and kernel."""
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in processors if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    processor = models[0] if models else platform.machine()
    return f"{os.cpu_count()} x {processor}, {memory:.0f} GiB, {system}, Linux {platform.release().partition('-')[0]}"
