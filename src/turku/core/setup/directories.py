"""The steps that create the directories of a program, as the program's file for systemd-tmpfiles declares them."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from turku.core.setup import host_files
from turku.core.setup.host import Host
from turku.core.setup.record import Kind, Made, Record
from turku.core.setup.step import DONE, Finding, State, Step, host_file_step, make_directory
from turku.errors import ConfigurationError


@dataclass(frozen=True)
class DirectoryStep(Step):
    """A directory. Teardown removes it if it is empty. With ``keeps_existing``, one that is there stays as it is."""

    place: Path
    mode: int
    owner: str = "root"
    group: str = "root"
    keeps_existing: bool = False

    @property
    def title(self) -> str:  # type: ignore[override]  # computed, not stored
        return f"create the directory {self.place}"

    def find(self, host: Host, record: Record) -> Finding:
        try:
            status = host.path(self.place).lstat()
        except FileNotFoundError:
            return Finding(State.NEEDED)
        if not stat.S_ISDIR(status.st_mode):
            raise ConfigurationError(f"{self.place} is there and is not a directory", hint="move it away")
        if self.keeps_existing and record.find(Kind.DIRECTORY, str(self.place)) is None:
            return DONE
        account = host.account(self.owner)
        wanted = (None if account is None else account.uid, host.group_id(self.group), self.mode)
        if wanted == (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)):
            return DONE
        return Finding(State.NEEDED, f"it gets the owner {self.owner}:{self.group} and the mode {self.mode:04o}")

    def apply(self, host: Host, record: Record) -> None:
        path = host.path(self.place)
        if not path.exists():
            record.add(Made(Kind.DIRECTORY, str(self.place)))
        make_directory(path, self.mode)
        account, gid = host.account(self.owner), host.group_id(self.group)
        if account is None or gid is None:
            raise ConfigurationError(f"there is no user {self.owner} with a group {self.group} for {self.place}")
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, account.uid, gid)
            os.fchmod(descriptor, self.mode)
        finally:
            os.close(descriptor)


def directory_steps(package: str, host: Host, program: str) -> list[Step]:
    """Return the steps that create the directories that the program's files for systemd-tmpfiles declare."""
    steps: list[Step] = []
    for file in host_files.all_of(package, "tmpfiles.d"):
        installs = host_file_step(file, host, program) if host.has_systemd else None
        if installs is not None:
            steps.append(installs)
        for line in file.content(host.program_directory(program)).decode().splitlines():
            words = line.split()
            if words and words[0] == "d":
                path, mode, owner, group = words[1:5]
                # A colon is systemd's own sign for what is given only to a new directory.
                keeps_existing = mode.startswith(":")
                mode, owner, group = (word.removeprefix(":") for word in (mode, owner, group))
                steps.append(DirectoryStep(Path(path), int(mode, 8), owner, group, keeps_existing=keeps_existing))
    return steps
