"""``turku-storage status``: what this storage is, what it did last, what is next, and what is wrong, on one screen."""

import argparse
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from turku.core import lock
from turku.core.cli import status_screen, systemd_timers
from turku.core.cli.listing import Say
from turku.core.cli.options import JSON_OBJECT
from turku.core.cli.program import Command
from turku.core.cli.status_screen import StatusRow, StatusScreen
from turku.core.clock import Clock
from turku.core.setup import host_files
from turku.core.units import count_of, duration, size
from turku.errors import ApiUnreachable, TurkuError
from turku.policy import names
from turku.protocol.messages import HealthAnswer
from turku.storage.commands.setup import configured
from turku.storage.config.model import StorageConfig
from turku.storage.disk import snapshot_record, volume_marks, volumes
from turku.storage.disk.machine_links import known_names
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.disk.source_lookup import find_sources
from turku.storage.fs import tree as fs
from turku.storage.integrity import damage, drill_record, scrub
from turku.storage.registration import faults, update_config
from turku.storage.registration.coordinator import clock_warning

_SHOWN_RUNS = 5
_NAMED = 3
"""Damaged or badly drilled sources that a sentence names."""
_SESSIONS = {"machine": "backup", "restore": "restore", "history": "browsing"}


@dataclass(frozen=True)
class _Run:
    """The newest snapshot of a source."""

    moment: datetime
    place: SourceDirectory
    snapshot: str


@dataclass
class _Sources:
    """The sources that are kept here, as far as the screen tells of them."""

    count: int
    runs: Sequence[_Run]
    verified: Sequence[float]
    """The Unix time of each source's last verification, or 0 for never."""
    drilled: Sequence[float]
    damaged: Sequence[SourceDirectory]
    badly_drilled: Sequence[SourceDirectory]


def run(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """Print the screen. Return 1 where there is a problem."""
    return status_screen.show(screen(configuration, clock), say, as_json=options.json)


def screen(configuration: StorageConfig, clock: Clock) -> StatusScreen:
    """Return the content of the screen."""
    now, zone = clock.now(), configuration.state.timezone
    problems: list[str] = []
    coordinator = _coordinator(configuration, clock, problems)
    problems += [fault.text for fault in faults.found(configuration)]
    found = _sources(configuration, zone)
    problems += _integrity_problems(configuration, found)
    timers = systemd_timers.read(host_files.timers("turku.storage"))
    problems += status_screen.timer_problems(timers)
    shown_names = {uuid: min(known) for uuid, known in known_names(configuration.state).items()}
    sessions = list(_sessions(configuration, shown_names))
    runs = [_run_facts(each, shown_names) for each in found.runs]
    rows = status_screen.timer_rows(timers, zone, now=now)
    if not systemd_timers.is_booted():
        rows = [StatusRow("timers", "systemd does not run here: see the crontab in host_files")]
    return StatusScreen(
        program="turku-storage",
        subject=f"storage {configuration.identity.name}",
        identity=[
            StatusRow("coordinator", f"{configuration.api.api_url}, {_told(coordinator, zone, now)}"),
            StatusRow("machines", f"{count_of(found.count, 'source')} of {count_of(len(shown_names), 'machine')}"),
            *(StatusRow(f"volume {row['name']}", _space(row)) for row in _volumes(configuration)),
            StatusRow("sessions", ", ".join(_session_texts(sessions)) or "none at this moment"),
        ],
        last=[
            *(StatusRow("backup", _run_text(each, zone, now)) for each in runs),
            StatusRow("verify", _oldest_and_newest(found.verified, zone, now)),
            StatusRow("drill", _newest(found.drilled, zone, now)),
            *(
                StatusRow(timer.name, status_screen.moment(timer.last_at, zone, now=now))
                for timer in timers
                if timer.last_at is not None and timer.name == "turku-storage-gc"
            ),
        ],
        next=rows,
        problems=problems,
        facts={
            "coordinator": coordinator,
            "volumes": list(_volumes(configuration)),
            "sources": found.count,
            "sessions": sessions,
            "last_backups": runs,
            "last_verify": _moment(max(found.verified, default=0)),
            "last_drill": _moment(max(found.drilled, default=0)),
            "timers": status_screen.timer_facts(timers),
        },
    )


def _coordinator(configuration: StorageConfig, clock: Clock, problems: list[str]) -> dict[str, Any]:
    api = configuration.api.client(configuration.state.var_dir)
    error = None
    try:
        api.call("health", {}, HealthAnswer)
    except TurkuError as refusal:
        # Any answer shows that it is reachable.
        error = refusal.message if isinstance(refusal, ApiUnreachable) else None
        if error is not None:
            problems.append(f"the coordinator cannot be reached: {error}")
    if warning := clock_warning(api, clock):
        problems.append(warning)
    answered = update_config.last_answer(configuration.state)
    if answered is None:
        problems.append("the coordinator never accepted this storage's report: turku-storage update-config")
    return {"url": configuration.api.api_url, "is_reachable": error is None, "last_report": answered}


def _told(coordinator: Mapping[str, Any], zone: tzinfo, now: datetime) -> str:
    state = "reachable" if coordinator["is_reachable"] else "NOT reachable"
    if coordinator["last_report"] is None:
        return f"{state}, no report so far"
    return f"{state}, last report {status_screen.moment(coordinator['last_report'], zone, now=now)}"


def _volumes(configuration: StorageConfig) -> Iterator[dict[str, Any]]:
    for volume in configuration.disk.volumes:
        fault = volume_marks.fault(configuration, volume)
        space = None if fault else volumes.volume_space(volume)
        yield {
            "name": volume.name,
            "path": str(volume.path),
            "fault": fault,
            "total_bytes": None if space is None else space.total_bytes,
            "available_bytes": None if space is None else space.available_bytes,
            "used_percent": None if space is None else round(space.fullness_percent, 1),
        }


def _space(volume: Mapping[str, Any]) -> str:
    if volume["total_bytes"] is None:
        return f"{volume['path']}, NOT there"
    free = f"{size(volume['available_bytes'])} of {size(volume['total_bytes'])} free"
    return f"{volume['path']}, {free}, {volume['used_percent']:.0f} % used"


def _sessions(configuration: StorageConfig, shown_names: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the kind and machine of each session that runs. Only its locks are looked at."""
    for name in sorted(lock.held_names(configuration.state.lock_dir)):
        first, _, rest = name.partition("-")
        uuid, _, kind = rest.rpartition("-")[0].rpartition("-") if first == "session" else (rest, "", first)
        if names.is_machine_uuid(uuid) and kind in _SESSIONS:
            yield {"kind": _SESSIONS[kind], "uuid": uuid, "machine": shown_names.get(uuid, uuid)}


def _session_texts(sessions: Sequence[Mapping[str, str]]) -> Iterator[str]:
    yield from (f"{each['kind']} of {each['machine']}" for each in sessions[:_NAMED])
    if len(sessions) > _NAMED:
        yield f"and {len(sessions) - _NAMED} more"


def _sources(configuration: StorageConfig, zone: tzinfo) -> _Sources:
    places = find_sources(configuration)
    newest = (found for place in places if (found := _newest_run(place, zone)) is not None)
    drills = {place: drill for place in places if (drill := drill_record.read(place)) is not None}
    return _Sources(
        count=len(places),
        runs=heapq.nlargest(_SHOWN_RUNS, newest, key=lambda each: each.moment),
        verified=[scrub.last_run(place) for place in places],
        drilled=[drill.time_end for drill in drills.values()],
        damaged=[place for place in places if damage.open_damages(damage.read(place))],
        badly_drilled=[place for place, drill in drills.items() if not drill.success],
    )


def _newest_run(place: SourceDirectory, zone: tzinfo) -> _Run | None:
    """Return the newest snapshot by its name. Reading the record of each snapshot would take too long."""
    found = []
    for entry in fs.names(place.snapshots_dir):
        moment = names.parse_snapshot_name(entry, source=place.source, zone=zone).moment
        if moment is not None and not entry.startswith("."):
            found.append(_Run(moment, place, entry))
    return max(found, key=lambda each: each.moment, default=None)


def _run_facts(run: _Run, shown_names: Mapping[str, str]) -> dict[str, Any]:
    record = snapshot_record.read(run.place, run.snapshot)
    uuid = run.place.machine_dir.name
    return {
        "uuid": uuid,
        "machine": shown_names.get(uuid, uuid),
        "source": run.place.source,
        "snapshot": run.snapshot,
        "time": run.moment if record is None else record.sync_finish,
        "seconds": None if record is None else (record.sync_finish - record.sync_begin).total_seconds(),
    }


def _run_text(run: Mapping[str, Any], zone: tzinfo, now: datetime) -> str:
    took = "" if run["seconds"] is None else f", took {duration_of(run['seconds'])}"
    return f"{run['machine']} {run['source']}, {status_screen.moment(run['time'], zone, now=now)}{took}"


def duration_of(seconds: float) -> str:
    """Return the duration as people read it."""
    return duration(datetime.fromtimestamp(max(seconds, 0), UTC) - datetime.fromtimestamp(0, UTC))


def _moment(unix_seconds: float) -> datetime | None:
    return datetime.fromtimestamp(unix_seconds, UTC) if unix_seconds else None


def _newest(moments: Iterable[float], zone: tzinfo, now: datetime) -> str:
    newest = _moment(max(moments, default=0))
    return "never" if newest is None else status_screen.moment(newest, zone, now=now)


def _oldest_and_newest(moments: Sequence[float], zone: tzinfo, now: datetime) -> str:
    never = sum(1 for each in moments if not each)
    oldest = _moment(min(moments, default=0))
    if never:
        rest = f"; {count_of(never, 'source')} never"
    else:
        rest = "" if oldest is None else f"; each source since {status_screen.moment(oldest, zone, now=now)}"
    return _newest(moments, zone, now) + rest


def _integrity_problems(configuration: StorageConfig, found: _Sources) -> Iterator[str]:
    shown_names = {uuid: min(known) for uuid, known in known_names(configuration.state).items()}

    def listed(places: Sequence[SourceDirectory]) -> str:
        first = [f"{shown_names.get(each.machine_dir.name, each.machine_dir.name)} {each.source}" for each in places]
        more = f" and {len(first) - _NAMED} more" if len(first) > _NAMED else ""
        return ", ".join(first[:_NAMED]) + more

    if found.damaged:
        yield f"stored files are damaged: {listed(found.damaged)} (docs/howto/prove-backups.md)"
    if found.badly_drilled:
        yield f"the last restore drill failed: {listed(found.badly_drilled)} (turku-storage drill)"


COMMANDS = (
    Command(
        "status",
        "Show on one screen what this storage is, what it did last, what is next, and what is wrong.",
        configured(run),
        (
            ("Look at this storage:", "{prog}"),
            ("Look at it every ten seconds:", "watch -n 10 {prog}"),
            ("Print the names of its volumes:", "{prog} --json | jq -r '.volumes[].name'"),
        ),
        (JSON_OBJECT,),
        "It asks the coordinator whether it is reachable, and changes nothing. 'turku-storage check' looks at the "
        "configuration and at what protects the host as well.",
        status_screen.EXIT_CODES,
    ),
)
