"""The storages that this machine trusts, known by their SSH host keys (threats C1).

A coordinator says where backups go, and a hostile one would name a storage of its own. Therefore the host keys of the
first storages are recorded, and a storage with other keys, under whatever name, gets nothing until an administrator
accepts it on this machine. The coordinator chooses names, addresses and ports, so only the keys count.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.state import var_dir
from turku.core import durable
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import ConfigurationError, InvalidValue, StorageNotTrusted
from turku.policy import names, ssh_key
from turku.protocol.messages import StorageAddress

KNOWN_FILE = "known_storages.json"
PENDING_FILE = "pending_storages.json"
_PENDING_LIMIT = 20
"""The most storages that wait at the same time, and the most keys of each. The oldest are dropped.

A hostile coordinator may invent any number.
"""
_LOG = logging.getLogger(__name__)
_StoredEntry = TypeVar("_StoredEntry")


@dataclass(frozen=True)
class Address:
    """A checked address: nothing in it can be mistaken for an option or break out of a line of a file."""

    name: str
    host: str
    port: int
    user: str
    host_keys: tuple[str, ...]


def checked_address(address: StorageAddress) -> Address:
    """Return the address that the coordinator gave, checked. Raises InvalidValue."""
    name = names.storage_name(address.name)
    try:
        keys = tuple(dict.fromkeys(ssh_key.ssh_host_key(key).line for key in address.ssh_ping_host_keys))
        if not keys:
            raise InvalidValue("has no SSH host key, so nobody could tell it from another")
        return Address(
            name=name,
            host=names.host_name(address.ssh_ping_host),
            port=names.port(address.ssh_ping_port),
            user=names.user_name(address.ssh_ping_user),
            host_keys=keys,
        )
    except InvalidValue as error:
        raise InvalidValue(
            f"storage {name}, as the coordinator describes it: {error.message}", hint=error.hint
        ) from None


class TrustedStorage(msgspec.Struct, frozen=True):
    """A storage that this machine trusts, as recorded in ``var_dir``."""

    host_keys: list[str]
    since: str
    how: str


class PendingStorage(msgspec.Struct, frozen=True):
    """A storage with an unknown host key, as the coordinator announced it."""

    announced_host_keys: list[str]
    address: str
    since: str


@dataclass(frozen=True)
class TrustedKeys:
    """The trusted keys by name of the storage. Those of the configuration replace recorded ones."""

    configured: Mapping[str, tuple[str, ...]]
    learned: Mapping[str, TrustedStorage] | None
    """None where nothing was ever recorded, not even an empty record."""

    def has_name(self, name: str) -> bool:
        return name in self.configured or name in (self.learned or {})

    def keys_for(self, name: str) -> frozenset[str]:
        """Return the keys that a storage of this name may have: its own in the configuration, else any trusted one."""
        if name in self.configured:
            return frozenset(self.configured[name])
        counting = [known.host_keys for other, known in (self.learned or {}).items() if other not in self.configured]
        return frozenset(key for keys in (*counting, *self.configured.values()) for key in keys)


def trusted_keys(agent: AgentConfig) -> TrustedKeys:
    """Return the keys that this machine trusts.

    Raises ConfigurationError where the record is damaged, because that must not count as a first contact.
    """
    return TrustedKeys(agent.tunnel.storage_host_keys, _read(agent.state.var_dir / KNOWN_FILE, TrustedStorage))


def pending(configuration: AgentState) -> dict[str, PendingStorage]:
    """Return the storages that wait to be accepted, by name. Raises ConfigurationError where the file is damaged."""
    return _read(configuration.var_dir / PENDING_FILE, PendingStorage) or {}


def check_trust(
    agent: AgentConfig, addresses: Sequence[Address], *, clock: Clock = SYSTEM_CLOCK
) -> list[Address | StorageNotTrusted]:
    """Return each address with its trusted host keys, or the error for which it gets nothing.

    All storages of one answer are passed together, because a machine that knows none yet trusts those of its first
    answer. The others are recorded for ``turku-agent accept-storage``. Raises ConfigurationError, DurableWriteFailed.
    """
    now = clock.now().isoformat(timespec="seconds")
    known = _learn(agent, addresses, now)
    waiting = pending(agent.state)
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
        _write(agent.state, PENDING_FILE, dict(list(left.items())[-_PENDING_LIMIT:]))
    return verdicts


def verdict(agent: AgentConfig, address: Address) -> Address:
    """Return the address with the host keys that ``check_trust`` would accept now, without recording anything.

    Raises StorageNotTrusted, ConfigurationError.
    """
    known = trusted_keys(agent)
    if _trusts_new(agent, known) and not known.has_name(address.name):
        return address
    keys = tuple(key for key in address.host_keys if key in known.keys_for(address.name))
    if not keys:
        raise _refusal(address, known)
    return replace(address, host_keys=keys)


def accept(
    agent: AgentConfig, name: str, *, fingerprints: Collection[str] = (), clock: Clock = SYSTEM_CLOCK
) -> tuple[list[str], list[str]]:
    """Trust the keys that wait under ``name``, or those with these fingerprints. Return accepted and dropped keys.

    Keys that the coordinator no longer announces are dropped. Raises ConfigurationError where no such storage or key
    waits, or where the configuration sets the keys.
    """
    waiting, known = pending(agent.state), trusted_keys(agent)
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
    learned = dict(known.learned or {})
    dropped = [key for key in (learned[name].host_keys if name in learned else ()) if key not in announced]
    kept = [key for key in announced if key in before or key in accepted]
    learned[name] = TrustedStorage(kept, clock.now().isoformat(timespec="seconds"), "accepted")
    _write(agent.state, KNOWN_FILE, learned)
    if len(kept) == len(announced):
        _write(agent.state, PENDING_FILE, {other: entry for other, entry in waiting.items() if other != name})
    return accepted, dropped


def listing(agent: AgentConfig) -> list[str]:
    """Return the trusted storages and the waiting ones as lines for people."""
    known, waiting = trusted_keys(agent), pending(agent.state)
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
    """Return the fingerprint ``SHA256:...`` of a host key."""
    return ssh_key.ssh_host_key(line).fingerprint


def shown(line: str) -> str:
    """Return a host key as people compare it: fingerprint and type."""
    return f"{fingerprint(line)} ({line.split(maxsplit=1)[0]})"


def _is_first(known: TrustedKeys) -> bool:
    return known.learned is None and not known.configured


def _trusts_new(agent: AgentConfig, known: TrustedKeys) -> bool:
    policy = agent.tunnel.trust_new_storages
    return policy == "always" or (policy == "first" and _is_first(known))


def _learn(agent: AgentConfig, addresses: Sequence[Address], now: str) -> TrustedKeys:
    """Return the trusted keys, after adding those that ``trust_new_storages`` accepts from these addresses."""
    known = trusted_keys(agent)
    is_first = _is_first(known)
    if not _trusts_new(agent, known):
        return known
    learned = dict(known.learned or {})
    how = "first contact" if is_first else "new storage"
    for address in addresses:
        if address.name not in learned and not known.has_name(address.name):
            learned[address.name] = TrustedStorage(list(address.host_keys), now, how)
            keys = ", ".join(map(shown, address.host_keys))
            # A first contact needs no action. turku-agent storages shows it.
            level = logging.DEBUG if is_first else logging.INFO
            _LOG.log(level, "storage %s is trusted from now on with the host keys %s", address.name, keys)
    if learned != (known.learned or {}) and not _write(agent.state, KNOWN_FILE, learned, is_first=is_first):
        # Another run was first, and its record counts.
        return trusted_keys(agent)
    return TrustedKeys(known.configured, learned)


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
            hint="it lists the storages that this machine trusts: repair it, or set storage_host_keys and remove it",
        ) from error


def _write(
    configuration: AgentState,
    name: str,
    content: Mapping[str, TrustedStorage] | Mapping[str, PendingStorage],
    *,
    is_first: bool = False,
) -> bool:
    """Replace the file. Return False where it was to be the first one and another run has written it."""
    path = var_dir.directory(configuration) / name
    # The order is kept, because the oldest is dropped first.
    text = msgspec.json.format(msgspec.json.encode(dict(content)), indent=4).decode() + "\n"
    if not is_first:
        var_dir.write_text(configuration, path, text)
    elif durable.write_new_text(path, text):
        var_dir.give(configuration, path)
    else:
        return False
    return True
