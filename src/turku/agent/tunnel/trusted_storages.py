"""Which storages this machine knows, by their SSH host keys (threats C1).

A coordinator says where backups go; a hostile one would say: to me. So the keys of the first storages are written down,
and a storage with other keys, under whatever name, gets nothing until an administrator accepts it on this machine.
Names, addresses and ports are the coordinator's to choose: whoever holds a key that is known here is known.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from turku.agent.config.model import AgentConfig
from turku.agent.state import var_dir
from turku.agent.tunnel.storage_address import Address
from turku.core import durable
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import ConfigurationError, StorageNotTrusted
from turku.policy import ssh_key

KNOWN_FILE = "known_storages.json"
PENDING_FILE = "pending_storages.json"
_PENDING_LIMIT = 20
"""Storages that wait at the same time, and keys of each. A coordinator may make up more: the oldest go."""
_LOG = logging.getLogger(__name__)
_StoredEntry = TypeVar("_StoredEntry")


class TrustedStorage(msgspec.Struct, frozen=True):
    """A storage that this machine trusts, as it is kept in ``var_dir``."""

    host_keys: list[str]
    since: str
    how: str


class PendingStorage(msgspec.Struct, frozen=True):
    """What the coordinator announced of a storage when one of its host keys was not known here."""

    announced_host_keys: list[str]
    address: str
    since: str


@dataclass(frozen=True)
class TrustedKeys:
    """The keys that count, by name of the storage; those of the configuration stand in place of what was learnt."""

    configured: Mapping[str, tuple[str, ...]]
    learned: Mapping[str, TrustedStorage] | None
    """None where nothing was ever learnt, not even nothing."""

    def has_name(self, name: str) -> bool:
        return name in self.configured or name in (self.learned or {})

    def keys_for(self, name: str) -> frozenset[str]:
        """The keys that a storage of this name may show: its own in the configuration, else any that is known."""
        if name in self.configured:
            return frozenset(self.configured[name])
        counting = [known.host_keys for other, known in (self.learned or {}).items() if other not in self.configured]
        return frozenset(key for keys in (*counting, *self.configured.values()) for key in keys)


def trusted_keys(agent: AgentConfig) -> TrustedKeys:
    """What this machine knows now. Raises ConfigurationError where the file is damaged: that is no first contact."""
    return TrustedKeys(agent.tunnel.storage_host_keys, _read(agent.state.var_dir / KNOWN_FILE, TrustedStorage))


def pending(agent: AgentConfig) -> dict[str, PendingStorage]:
    """What waits to be accepted, by name of the storage."""
    return _read(agent.state.var_dir / PENDING_FILE, PendingStorage) or {}


def check_trust(
    agent: AgentConfig, addresses: Sequence[Address], *, clock: Clock = SYSTEM_CLOCK
) -> list[Address | StorageNotTrusted]:
    """For each address: itself with those of its host keys that are trusted, or why it gets nothing.

    All storages of one answer come together: a machine that knows none yet trusts those of its first answer. What is
    not trusted is written down, for ``turku-agent accept-storage``. Raises ConfigurationError, DurableWriteFailed.
    """
    now = clock.now().isoformat(timespec="seconds")
    known = _learn(agent, addresses, now)
    waiting = pending(agent)
    left = dict(waiting)
    verdicts: list[Address | StorageNotTrusted] = []
    for address in addresses:
        keys = known.keys_for(address.name)
        trusted = tuple(key for key in address.host_keys if key in keys)
        verdicts.append(replace(address, host_keys=trusted) if trusted else _refusal(address, known))
        announced = list(address.host_keys[:_PENDING_LIMIT])
        if len(trusted) == len(address.host_keys):
            left.pop(address.name, None)
        elif address.name not in left or left[address.name].announced_host_keys != announced:
            left.pop(address.name, None)
            left[address.name] = PendingStorage(announced, f"{address.host} port {address.port}", now)
            if trusted:
                _LOG.warning("%s", _further_keys(address, trusted))
    if left != waiting:
        _write(agent, PENDING_FILE, dict(list(left.items())[-_PENDING_LIMIT:]))
    return verdicts


def accept(
    agent: AgentConfig, name: str, *, fingerprints: Collection[str] = (), clock: Clock = SYSTEM_CLOCK
) -> tuple[list[str], list[str]]:
    """Trust the keys that wait under ``name``, or those of them with these fingerprints: (trusted now, not any more).

    Keys that the coordinator does not announce any more are not trusted from here on. Raises ConfigurationError where
    nothing of that kind waits, or the configuration is what counts.
    """
    waiting, known = pending(agent), trusted_keys(agent)
    if name not in waiting:
        raise ConfigurationError(
            f"no storage named {name!r} waits to be accepted", hint="turku-agent storages shows them"
        )
    if name in known.configured:
        raise ConfigurationError(
            f"the host keys of {name} are set by storage_host_keys in the configuration, which alone counts",
            hint="change them there",
        )
    announced, before = waiting[name].announced_host_keys, known.keys_for(name)
    accepted = [
        key for key in announced if key not in before and (not fingerprints or fingerprint(key) in fingerprints)
    ]
    if missing := set(fingerprints) - {fingerprint(key) for key in accepted}:
        raise ConfigurationError(
            f"no key of {name} that waits has the fingerprint {', '.join(sorted(missing))}",
            hint="turku-agent storages shows what the coordinator announces",
        )
    learnt = dict(known.learned or {})
    dropped = [key for key in (learnt[name].host_keys if name in learnt else ()) if key not in announced]
    kept = [key for key in announced if key in before or key in accepted]
    learnt[name] = TrustedStorage(kept, clock.now().isoformat(timespec="seconds"), "accepted")
    _write(agent, KNOWN_FILE, learnt)
    if len(kept) == len(announced):
        _write(agent, PENDING_FILE, {other: entry for other, entry in waiting.items() if other != name})
    return accepted, dropped


def listing(agent: AgentConfig) -> list[str]:
    """The storages that are trusted, and those that wait, for people."""
    known, waiting = trusted_keys(agent), pending(agent)
    trusted = [
        *((name, keys, "set in the configuration") for name, keys in known.configured.items()),
        *(
            (name, entry.host_keys, f"{entry.how}, {entry.since}")
            for name, entry in (known.learned or {}).items()
            if name not in known.configured
        ),
    ]
    lines = ["Trusted storages:" if trusted else "Trusted storages: none"]
    for name, keys, how in trusted:
        lines += [f"    {name}  ({how})", *(f"        {shown(key)}" for key in keys)]
    lines += ["Waiting to be accepted:" if waiting else "Waiting to be accepted: none"]
    for name, entry in waiting.items():
        new = [key for key in entry.announced_host_keys if key not in known.keys_for(name)]
        lines += [f"    {name}  ({entry.address}, {entry.since})", *(f"        {shown(key)}" for key in new)]
    return lines


def fingerprint(line: str) -> str:
    """``SHA256:...`` of a host key."""
    return ssh_key.ssh_host_key(line).fingerprint


def shown(line: str) -> str:
    """A host key as people compare it: fingerprint and type."""
    return f"{fingerprint(line)} ({line.split(maxsplit=1)[0]})"


def _learn(agent: AgentConfig, addresses: Sequence[Address], now: str) -> TrustedKeys:
    """What is known, with what ``trust_new_storages`` lets this machine learn from these addresses."""
    known = trusted_keys(agent)
    is_first = known.learned is None and not known.configured
    if agent.tunnel.trust_new_storages == "never" or not (is_first or agent.tunnel.trust_new_storages == "always"):
        return known
    learnt = dict(known.learned or {})
    how = "first contact" if is_first else "new storage"
    for address in addresses:
        if address.name not in learnt and not known.has_name(address.name):
            learnt[address.name] = TrustedStorage(list(address.host_keys), now, how)
            keys = ", ".join(map(shown, address.host_keys))
            # Of the first contact nothing needs to be done; turku-agent storages shows it.
            level = logging.DEBUG if is_first else logging.INFO
            _LOG.log(level, "storage %s is known from now on by its host keys %s", address.name, keys)
    if learnt != (known.learned or {}):
        if is_first and not _write_first(agent, learnt):
            # Another run was first; what it learnt counts.
            return trusted_keys(agent)
        if not is_first:
            _write(agent, KNOWN_FILE, learnt)
    return TrustedKeys(known.configured, learnt)


def _refusal(address: Address, known: TrustedKeys) -> StorageNotTrusted:
    what = "has other host keys than" if known.has_name(address.name) else "is none of those that"
    keys = ", ".join(map(shown, address.host_keys[:_PENDING_LIMIT]))
    if address.name in known.configured:
        hint = "storage_host_keys in the configuration says which are right"
    else:
        hint = (
            "compare it with what ssh-keygen -lf shows of the key file on the storage; if it is right, run here: "
            f"turku-agent accept-storage '{address.name}' --fingerprint {fingerprint(address.host_keys[0])}"
        )
    return StorageNotTrusted(
        f"storage {address.name} ({address.host} port {address.port}) {what} this machine knows; it gets nothing",
        details=f"the coordinator announces {keys}",
        hint=hint,
    )


def _further_keys(address: Address, trusted: Sequence[str]) -> str:
    others = ", ".join(shown(key) for key in address.host_keys[:_PENDING_LIMIT] if key not in trusted)
    return (
        f"storage {address.name} is known, but the coordinator announces further host keys of it, which do not count "
        f"until they are accepted (turku-agent accept-storage): {others}"
    )


def _read(path: Path, kind: type[_StoredEntry]) -> dict[str, _StoredEntry] | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, kind])  # type: ignore[valid-type]
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error}",
            hint="it says which storages this machine trusts; mend it, or set storage_host_keys and remove it",
        ) from error


def _text(content: Mapping[str, TrustedStorage] | Mapping[str, PendingStorage]) -> str:
    # In their order: the oldest goes first.
    return msgspec.json.format(msgspec.json.encode(dict(content)), indent=4).decode() + "\n"


def _write(agent: AgentConfig, name: str, content: Mapping[str, TrustedStorage] | Mapping[str, PendingStorage]) -> None:
    var_dir.write_text(agent, var_dir.directory(agent) / name, _text(content))


def _write_first(agent: AgentConfig, content: Mapping[str, TrustedStorage]) -> bool:
    path = var_dir.directory(agent) / KNOWN_FILE
    if not durable.write_new_text(path, _text(content)):
        return False
    var_dir.give(agent, path)
    return True
