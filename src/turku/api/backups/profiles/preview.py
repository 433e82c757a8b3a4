"""The effect that a change of a profile would have: the machines that it touches, and what becomes of each source."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q, QuerySet

from turku.api.backups.models import Source
from turku.api.backups.profiles import offers
from turku.api.backups.profiles.models import MachineProfile, ProfilesOfMachine
from turku.api.fleet.models import Machine
from turku.core.log import one_line
from turku.core.units import count_of
from turku.errors import InvalidValue
from turku.policy import source_options
from turku.policy.declaration import profiles, weakening
from turku.policy.declaration.weakening import Declared

NAMED = 20
"""Machines that a preview names. The others are counted."""


@dataclass(frozen=True)
class SourcePreview:
    """The change of one source."""

    name: str
    change: str
    """``added``, ``changed``, ``removed`` or ``unchanged``."""
    path: str
    options: tuple[str, ...]
    """The options that differ."""
    weakens: tuple[str, ...]
    """The ways in which the change weakens protection. Its effect on history is delayed."""
    machines_that_accept: int
    """Machines of the group whose ``accept_profiles`` has a directory above the path."""


@dataclass(frozen=True)
class ProfilePreview:
    """The effect of a change of one profile."""

    name: str
    change: str
    machines: int
    """Machines that are offered the profile afterwards."""
    machines_accepting: int
    """Those of them that accept profiles."""
    machines_leaving: int
    """Machines that are offered it now, and not afterwards."""
    named: tuple[str, ...]
    """The first machines that are offered it afterwards."""
    sources: tuple[SourcePreview, ...]
    conflicts: tuple[str, ...]
    """The first machines that have a source of such a name of their own, which wins."""


def machines_of(profile: MachineProfile) -> QuerySet[Machine]:
    """Return the active machines that a profile is for."""
    conditions = Q(active=True)
    if profile.auth_id is not None:
        conditions &= Q(auth=profile.auth_id)
    if profile.environment_name:
        conditions &= Q(environment_name=profile.environment_name)
    if profile.service_name:
        conditions &= Q(service_name=profile.service_name)
    return Machine.objects.filter(conditions)


def of_change(changed: MachineProfile) -> ProfilePreview:
    """Return the effect of saving the profile, which may be new."""
    old = MachineProfile.objects.filter(pk=changed.pk).first() if changed.pk is not None else None
    return _preview(old, changed)


def of_removal(profile: MachineProfile) -> ProfilePreview:
    """Return the effect of removing the profile."""
    return _preview(profile, None)


def _preview(old: MachineProfile | None, new: MachineProfile | None) -> ProfilePreview:
    before = _content(old)
    after = _content(new)
    group = Machine.objects.none() if new is None else machines_of(new)
    losing = Machine.objects.none() if old is None else machines_of(old)
    # Machines that lose sources count by what they accept, too.
    accepting = _accepting(group if new is not None else losing)
    sources = tuple(_source(name, before.get(name), after.get(name), accepting) for name in sorted({**before, **after}))
    is_same_group = old is not None and new is not None and _group(old) == _group(new)
    is_unchanged = is_same_group and all(each.change == "unchanged" for each in sources)
    change = "removed" if new is None else "added" if old is None else "unchanged" if is_unchanged else "changed"
    leaving = (
        losing.count() if new is None else 0 if is_same_group else losing.exclude(pk__in=group.values("pk")).count()
    )
    return ProfilePreview(
        name=str(new or old),
        change=change,
        machines=group.count(),
        machines_accepting=sum(accepting.values()) if new is not None else 0,
        machines_leaving=leaving,
        named=tuple(str(machine) for machine in group[:NAMED]),
        sources=sources,
        conflicts=_conflicts(new, after),
    )


def _content(profile: MachineProfile | None) -> Mapping[str, Mapping[str, Any]]:
    return {} if profile is None else offers.content_of(profile).sources


def _group(profile: MachineProfile) -> tuple[Any, ...]:
    return profile.auth_id, profile.environment_name, profile.service_name


def _accepting(machines: QuerySet[Machine]) -> Counter[tuple[str, ...]]:
    """Return the number of these machines for each list of directories that some accept."""
    reports = ProfilesOfMachine.objects.filter(machine__in=machines.order_by().values("pk")).order_by()
    counted = reports.values_list("accepts").annotate(machines=Count("pk"))
    return Counter({tuple(accepts): number for accepts, number in counted})


def _source(
    name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, accepting: Counter[tuple[str, ...]]
) -> SourcePreview:
    path = str((new or old or {}).get("path"))
    options: tuple[str, ...] = ()
    if old is not None and new is not None:
        options = tuple(sorted(key for key in {*old, *new} if old.get(key) != new.get(key)))
    change = "added" if old is None else "removed" if new is None else "changed" if options else "unchanged"
    weakens = () if old is None else weakening.weakenings(_declared(old), None if new is None else _declared(new))
    return SourcePreview(
        name=name,
        change=change,
        path=path,
        options=options,
        weakens=tuple(str(each) for each in weakens),
        machines_that_accept=sum(count for accepts, count in accepting.items() if _is_accepted(path, accepts)),
    )


def _is_accepted(path: str, accepts: tuple[str, ...]) -> bool:
    try:
        profiles.accepted_below(path, accepts)
    except InvalidValue:
        return False
    return True


def _declared(options: Mapping[str, Any]) -> Declared:
    return Declared(
        path=options["path"],
        frequency=options.get("frequency") or source_options.DEFAULT_FREQUENCY,
        retention=options.get("retention") or source_options.DEFAULT_RETENTION,
        snapshot_mode="",
        filter=options.get("filter") or (),
        exclude=options.get("exclude") or (),
        one_file_system=options.get("one_file_system") is True,
    )


def _conflicts(profile: MachineProfile | None, sources: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the first sources of machines that have one of these names and did not take it from the profile."""
    if profile is None:
        return ()
    # In the database, because nearly all machines took the source from the profile.
    is_own = Q(pk__in=())
    for name in sources:
        is_own |= Q(name=name) & ~Q(machine__profiles__taken__has_key=name)
    machines = machines_of(profile).filter(profiles__isnull=False).order_by().values("pk")
    rows = Source.objects.filter(is_own, machine__in=machines, published=True).select_related("machine")
    return tuple(f"{row.machine}: {row.name}" for row in rows.order_by("pk")[:NAMED])


_MARKS = {"added": "+", "changed": "~", "removed": "-", "unchanged": " "}


def lines(effect: ProfilePreview) -> list[str]:
    """Return the effect in lines for people."""
    found = [f"Profile {effect.name}: {effect.change}"]
    if effect.change != "removed":
        named = ", ".join(effect.named)
        more = effect.machines - len(effect.named)
        found.append(
            f"Offered to {count_of(effect.machines, 'machine')}, of which {effect.machines_accepting:,} "
            f"accept{'s' if effect.machines_accepting == 1 else ''} profiles"
            + (f": {named}" if named else "")
            + (f" and {more:,} more" if more > 0 else "")
        )
    if effect.machines_leaving:
        found.append(
            f"No longer offered to {count_of(effect.machines_leaving, 'machine')}: what they took of it is withdrawn"
        )
    for source in effect.sources:
        details = [f"accepted by {count_of(source.machines_that_accept, 'machine')}"]
        details += [f"changes {', '.join(source.options)}"] if source.options else []
        details += [f"weakens: {', '.join(source.weakens)}"] if source.weakens else []
        found.append(f"  {_MARKS[source.change]} {source.name}  {source.path}  ({', '.join(details)})")
    found += [f"  own source, which wins: {conflict}" for conflict in effect.conflicts]
    return [one_line(line) for line in found]
