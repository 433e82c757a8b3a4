"""The record of what setup made on a host, so that teardown undoes that and nothing else.

An entry is written before the thing is made. A run that was killed in between leaves an entry for something that is not
there, which undoing skips.
"""

import hashlib
from enum import StrEnum
from typing import Final

import msgspec

from turku.core import durable
from turku.core.setup.host import Host
from turku.errors import ConfigurationError

DIRECTORY: Final = "/var/lib/turku-setup"
"""Root's own. The users of the programs own their state directories, and must not choose what root removes."""
_LIMIT_BYTES: Final = 1024 * 1024


class Kind(StrEnum):
    """The kind of a thing that setup makes."""

    USER = "user"
    DIRECTORY = "directory"
    FILE = "file"
    LINK = "link"
    UNIT = "unit"
    REGISTRATION = "registration"
    """A registration with a service elsewhere, by its address. Nothing on this host undoes it."""
    DATA = "data"
    """Data that setup began, such as a database. Nobody but its owner removes it."""


class Reload(StrEnum):
    """The service that reads a file again once it has changed."""

    NONE = ""
    SYSTEMD = "systemd"
    SSHD = "sshd"


class Made(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that setup made."""

    kind: Kind
    target: str
    """Name of a user or unit, or a path of the host."""
    digest: str = ""
    """SHA-256 of a file's content, or the target of a link. Other content was written by somebody else."""
    earlier: str = ""
    """Digest of the content that is being replaced."""
    token_digest: str = ""
    """Digest of the join token of a registration. It leads to no token, as their secrets are long and random."""
    is_finished: bool = True
    reload: Reload = Reload.NONE

    def wrote(self, content: bytes) -> bool:
        """Return True if setup wrote this content, and nobody edited it since."""
        return digest_of(content) in (self.digest, self.earlier)


class _RecordContent(msgspec.Struct, frozen=True):
    made: tuple[Made, ...] = ()


def digest_of(content: bytes) -> str:
    """Return the digest by which the record tells a file that was edited since."""
    return hashlib.sha256(content).hexdigest()


class Record:
    """The record of one program, oldest entry first."""

    def __init__(self, host: Host, program: str) -> None:
        self.path = host.path(DIRECTORY) / f"{program}.json"
        self._made = {(each.kind, each.target): each for each in self._read()}

    @property
    def made(self) -> tuple[Made, ...]:
        return tuple(self._made.values())

    def find(self, kind: Kind, target: str) -> Made | None:
        """Return the entry of a thing, or None if setup did not make it."""
        return self._made.get((kind, target))

    def knows_token(self, address: str, token_digest: str) -> bool:
        """Return True if a registration at the address was made with this join token."""
        made = self.find(Kind.REGISTRATION, address)
        return made is not None and made.token_digest == token_digest

    def add(self, made: Made) -> None:
        """Record a thing that is made next. Raises DurableWriteFailed."""
        key = (made.kind, made.target)
        if self._made.get(key) != made:
            self._made[key] = made
            self._write()

    def remove(self, made: Made) -> None:
        """Forget a thing that was undone. Raises DurableWriteFailed."""
        self._made.pop((made.kind, made.target), None)
        self._write()

    def _read(self) -> tuple[Made, ...]:
        try:
            return msgspec.json.decode(
                durable.read_regular_file(self.path, limit_bytes=_LIMIT_BYTES), type=_RecordContent
            ).made
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.MsgspecError, UnicodeError) as error:
            raise ConfigurationError(
                f"{self.path}: the record of what setup made cannot be read: {error}",
                hint="remove it to begin a new one; teardown then leaves what was made before",
            ) from error

    def _write(self) -> None:
        durable.make_private_directory(self.path.parent)
        durable.remove_temporary_files(self.path.parent, name_prefix=self.path.name)
        if self._made:
            durable.write_bytes(
                self.path, msgspec.json.format(msgspec.json.encode(_RecordContent(self.made)), indent=4)
            )
        else:
            self.path.unlink(missing_ok=True)
            durable.fsync_directory(self.path.parent)
