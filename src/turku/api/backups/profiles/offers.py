"""The profiles that a machine is offered, from a copy of all profiles that each process keeps for a second.

Every checkin of a machine that accepts profiles asks for their digest. A profile that was changed is offered a second
late at most.
"""

import hashlib
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from turku.api.backups.profiles.models import MachineProfile
from turku.core.clock import SYSTEM_CLOCK
from turku.policy.declaration import profiles
from turku.policy.declaration.profiles import Profile

KEPT_SECONDS = 1.0
_GROUPS_LIMIT = 10_000
"""Groups whose digests a process keeps. Machines choose the names of their environments and services."""


@dataclass(frozen=True)
class Group:
    """The properties of a machine that decide which profiles it is offered."""

    auth_key: int
    environment_name: str
    service_name: str


@dataclass(frozen=True)
class _GroupProfile:
    auth_key: int | None
    environment_name: str
    service_name: str
    profile: Profile

    def is_for(self, group: Group) -> bool:
        return (
            self.auth_key in (None, group.auth_key)
            and self.environment_name in ("", group.environment_name)
            and self.service_name in ("", group.service_name)
        )


@dataclass
class _Copy:
    revisions: tuple[tuple[int, UUID], ...] = ()
    profiles: tuple[_GroupProfile, ...] = ()
    digests: dict[Group, str] = field(default_factory=dict)
    current_until: float = 0.0


_copy = _Copy()


def forget() -> None:
    """Let the next checkin read the profiles again, because this process has just changed one."""
    _copy.current_until = 0.0


def digest(group: Group) -> str:
    """Return the digest of the profiles of a group. It is empty where there are none."""
    _refresh()
    found = _copy.digests.get(group)
    if found is None:
        found = digest_of(_offered(group))
        if len(_copy.digests) >= _GROUPS_LIMIT:
            _copy.digests.clear()
        _copy.digests[group] = found
    return found


def offered(group: Group) -> list[Profile]:
    """Return the profiles of a group, ordered by name."""
    _refresh()
    return _offered(group)


def digest_of(offered: list[Profile]) -> str:
    """Return the digest of these profiles."""
    if not offered:
        return ""
    content = [[each.name, each.sources] for each in offered]
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:32]


def content_of(row: MachineProfile) -> Profile:
    """Return the profile as machines are offered it."""
    return Profile(row.name, profiles.with_defaults(row.sources, row.defaults))


def _offered(group: Group) -> list[Profile]:
    return [each.profile for each in _copy.profiles if each.is_for(group)]


def _refresh() -> None:
    """Read the profiles where the copy is a second old and one was changed."""
    now = SYSTEM_CLOCK.monotonic_seconds()
    if now < _copy.current_until:
        return
    # The content is read only if one was changed.
    revisions = tuple(MachineProfile.objects.order_by("name").values_list("pk", "revision"))
    if revisions != _copy.revisions:
        rows = MachineProfile.objects.order_by("name")
        _copy.profiles = tuple(
            _GroupProfile(row.auth_id, row.environment_name, row.service_name, content_of(row)) for row in rows
        )
        _copy.revisions = revisions
        _copy.digests = {}
    _copy.current_until = now + KEPT_SECONDS
