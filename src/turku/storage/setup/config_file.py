"""The configuration file that ``turku-storage setup`` writes. What an administrator's own files say is left to them."""

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
from turku.errors import UsageError
from turku.protocol import join_token
from turku.protocol.join_token import JoinToken
from turku.storage.config import loading
from turku.storage.config.defaults import DEFAULT_VAR_DIR
from turku.storage.setup.volume_choice import VolumeChoice

SESSION_COMMAND: Final = "sudo turku-storage-ping"


@dataclass(frozen=True)
class Choices:
    """The answers that the command line gives. None is the default, or what an earlier setup chose."""

    token: JoinToken | None
    knows_token: bool = field(default=False, kw_only=True)
    """True if this host is registered with the token, so that what was edited since counts."""
    volumes: Sequence[VolumeChoice]
    name: str | None = None
    ssh_host: str | None = None
    ssh_port: int | None = None
    slots: int | None = None


@dataclass(frozen=True)
class Configuration:
    """The content of the file, and of all files together."""

    content: dict[str, Any]
    merged: dict[str, Any]
    token_digest: str = ""
    has_earlier: bool = False
    """True if the content was made from that of an earlier setup, with what was edited there."""

    @property
    def volumes(self) -> tuple[VolumeChoice, ...]:
        """The volumes, of whichever file."""
        return tuple(VolumeChoice(name, Path(each["path"])) for name, each in self.merged["volumes"].items())

    def step(self, config_dir: Path) -> FileStep:
        """Return the step that writes the file."""
        return FileStep(
            config_dir / "config.d" / config_file.FILE,
            durable.json_bytes(self.content),
            mode=0o600,
            keeps_edits=self.has_earlier,
            purpose="coordinator, volumes, and the address for machines",
        )


def configuration(choices: Choices, host: Host, config_dir: Path, *, user: str, sshd_port: int) -> Configuration:
    """Return the configuration that the choices make, over that of an earlier setup. Raises UsageError."""
    files = config_file.read(host.path(config_dir) / "config.d")
    before = files.merged(files.earlier)
    _refuse_another_login(before, user)
    token = join_token.in_force(choices.token, is_known=choices.knows_token, before=before)
    # A volume that is added leaves those that there are.
    content = directory.merge(files.earlier_without(join_token.KEYS if token else ()), _chosen(choices, token))
    # A storage that was torn down is the same one again. Under another name the coordinator would know two.
    content.setdefault("name", loading.remembered_name(host.path(DEFAULT_VAR_DIR)) or socket.gethostname())
    content.setdefault("ssh_ping_host", socket.getfqdn())
    content.setdefault("ssh_ping_port", sshd_port)
    content |= {"ssh_ping_user": user, "authorized_keys_command": SESSION_COMMAND}
    content = files.own(content)
    merged = files.merged(content)
    if token is not None:
        join_token.require_address(token, merged["api_url"])
    if "api_url" not in merged:
        raise UsageError(
            "a join token is needed, which tells where the coordinator is",
            hint="on the coordinator: turku-api join-token create storage",
        )
    if not merged.get("volumes"):
        raise UsageError("a volume is needed, the directory that will hold the backups", hint="--volume /srv/turku")
    if _is_loopback(merged["ssh_ping_host"]):
        raise UsageError(
            f"machines would get the address {merged['ssh_ping_host']}, which is their own",
            hint="--ssh-host storage.example.com names the address at which machines reach this host",
        )
    token_digest = choices.token.digest() if choices.token is not None else ""
    return Configuration(content, merged, token_digest, files.has_earlier)


def _refuse_another_login(before: Mapping[str, Any], user: str) -> None:
    """Raise UsageError if what an administrator wrote lets machines log in another way than setup would."""
    for key, value in (("ssh_ping_user", user), ("authorized_keys_command", SESSION_COMMAND)):
        if before.get(key, value) != value:
            raise UsageError(
                f"this storage was set up by hand, with {key} {before[key]!r}, and setup would make it {value!r}",
                hint=f"go on by hand, or remove {key} from your file in config.d and run this again",
            )


def _chosen(choices: Choices, token: JoinToken | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": choices.name,
        "ssh_ping_host": choices.ssh_host,
        "ssh_ping_port": choices.ssh_port,
        "slots": choices.slots,
    }
    if token is not None:
        found |= token.configuration()
    if choices.volumes:
        found["volumes"] = {each.name: {"path": str(each.path)} for each in choices.volumes}
    return {key: value for key, value in found.items() if value is not None}


def _is_loopback(name: str) -> bool:
    return name in ("localhost", "::1") or name.startswith("127.") or name.endswith((".localdomain", ".localhost"))
