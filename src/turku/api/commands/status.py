"""The command `turku-api status`: what this coordinator is, what it did last, what is next, what is wrong."""

import argparse
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from turku.api.backups.models import BackupRun, Source
from turku.api.commands.backup import DEFAULT_DIRECTORY
from turku.api.commands.setup import configured
from turku.api.configuration.environment import Environment
from turku.api.configuration.tls.certificate_files import describe
from turku.api.fleet.models import Machine, Storage
from turku.api.project.recovery import backup
from turku.api.queue import waiting_machines
from turku.api.queue.models import Slot, is_held_condition
from turku.api.status import fleet_health
from turku.api.status.fleet_health import FleetHealth
from turku.api.status.marks import off
from turku.api.status.source_marks import SWITCHED_OFF
from turku.core.cli import status_screen, systemd_timers
from turku.core.cli.listing import Say
from turku.core.cli.options import JSON_OBJECT
from turku.core.cli.program import Command
from turku.core.cli.status_screen import StatusRow, StatusScreen
from turku.core.cli.systemd_timers import Timer
from turku.core.clock import SYSTEM_CLOCK
from turku.core.setup import host_files
from turku.core.units import count_of, rough_duration, size
from turku.errors import CommandFailed

_SERVICE = "turku-api"
_CERTIFICATE_ENDS_SOON = timedelta(days=14)
_DAY = timedelta(days=1)
_OWN_BACKUP_IS_OLD = timedelta(days=3)
"""The timer makes one every night."""


def run(options: argparse.Namespace, say: Say) -> int:
    """Print the screen. Return 1 where there is a problem."""
    return status_screen.show(screen(now=SYSTEM_CLOCK.now()), say, as_json=options.json)


def screen(*, now: datetime) -> StatusScreen:
    """Return the content of the screen."""
    environment: Environment = settings.TURKU_ENVIRONMENT
    service, *timers = systemd_timers.read((_SERVICE, *host_files.timers("turku.api"))) or (Timer(_SERVICE),)
    health = fleet_health.current_health(now=now, verbose=True)
    certificate = environment.tls_certificate
    certificate_ends = _end_of(certificate) if certificate else None
    moment = partial(status_screen.moment, zone=timezone.get_current_timezone(), now=now)
    last_run = BackupRun.objects.select_related("source__machine").order_by("-date").first()
    recent = BackupRun.objects.filter(date__gte=now - _DAY)
    runs, failed_runs = recent.count(), recent.filter(success=False).count()
    last_backup = backup.newest(DEFAULT_DIRECTORY)
    counts = _fleet_counts()
    waiting = waiting_machines.asking_machines(now=now).values("machine").distinct().count()
    held = Slot.objects.filter(is_held_condition(now=now)).count()
    last = [
        *(
            [StatusRow("backup run", f"{last_run.source.machine} {last_run.source}, {moment(last_run.date)}")]
            if last_run is not None
            else []
        ),
        StatusRow("last 24 h", f"{count_of(runs, 'run')}, {failed_runs} of them failed"),
        StatusRow("own backup", "never" if last_backup is None else moment(last_backup)),
        *(StatusRow("clean-logs", moment(each)) for each in _last_cleanings(timers)),
    ]
    return StatusScreen(
        program="turku-api",
        subject=f"coordinator {environment.url or environment.bind}",
        identity=[
            StatusRow("service", _service_text(service)),
            StatusRow("database", _database_text(environment)),
            *([StatusRow("certificate", f"{certificate}, {_ends(certificate_ends, moment)}")] if certificate else []),
            StatusRow("fleet", ", ".join(count_of(count, noun.removesuffix("s")) for noun, count in counts.items())),
            StatusRow("queue", f"{count_of(held, 'session')} at work, {count_of(waiting, 'machine')} waiting"),
        ],
        last=last,
        next=_next_rows(timers, now=now),
        problems=[
            *_own_problems(service, certificate, certificate_ends, now=now),
            *_backup_problems(last_backup, now=now),
            *status_screen.timer_problems((service, *timers)),
            *_fleet_problems(health),
        ],
        facts={
            "url": environment.url,
            "database": environment.database.engine,
            "is_service_running": service.is_service_running if systemd_timers.is_booted() else None,
            "certificate_ends": certificate_ends,
            **counts,
            "sessions": held,
            "waiting_machines": waiting,
            "runs_last_day": runs,
            "failed_runs_last_day": failed_runs,
            "last_run": None if last_run is None else last_run.date,
            "last_own_backup": last_backup,
            "health": health.summary,
            "timers": status_screen.timer_facts(timers),
        },
    )


def _fleet_counts() -> dict[str, int]:
    return {
        "storages": Storage.objects.exclude(off("")).count(),
        "machines": Machine.objects.exclude(off("")).count(),
        "sources": Source.objects.exclude(SWITCHED_OFF).count(),
    }


def _next_rows(timers: Sequence[Timer], *, now: datetime) -> Sequence[StatusRow]:
    if not systemd_timers.is_booted():
        return [StatusRow("timers", "systemd does not run here: see the crontab in host_files")]
    return status_screen.timer_rows(timers, timezone.get_current_timezone(), now=now)


def _last_cleanings(timers: Sequence[Timer]) -> Iterator[datetime]:
    for timer in timers:
        if timer.name == "turku-api-clean-logs" and timer.last_at is not None:
            yield timer.last_at


def _service_text(service: Timer) -> str:
    if not systemd_timers.is_booted():
        return "not known, because systemd does not run here"
    return "running" if service.is_service_running else "NOT running"


def _database_text(environment: Environment) -> str:
    database = environment.database
    if database.engine != "sqlite3":
        return f"PostgreSQL, {database.name} at {database.host or 'this host'}"
    try:
        used = f", {size(Path(database.name).stat().st_size)}"
    except OSError:
        used = ""
    return f"SQLite, {database.name}{used}"


def _end_of(certificate: Path) -> datetime | None:
    """Return the end of a certificate in a PEM file, or None if it cannot be read."""
    try:
        return describe(certificate).ends
    except CommandFailed:
        return None


def _ends(end: datetime | None, moment: Any) -> str:
    return "whose end cannot be read" if end is None else f"ends {moment(end)}"


def _own_problems(service: Timer, certificate: Path | None, ends: datetime | None, *, now: datetime) -> Iterator[str]:
    if systemd_timers.is_booted() and not service.is_service_running and not service.has_service_failed:
        yield "turku-api.service does not run: systemctl enable --now turku-api.service"
    if certificate and ends is not None and ends - now < _CERTIFICATE_ENDS_SOON:
        yield f"the certificate {certificate} {'has ended' if ends <= now else 'ends soon'}: renew it"


def _backup_problems(last: datetime | None, *, now: datetime) -> Iterator[str]:
    # Without any, the timer has not come yet, or this coordinator is kept in another way.
    if last is not None and now - last > _OWN_BACKUP_IS_OLD:
        yield f"the newest backup of this coordinator is {rough_duration(now - last)} old: run turku-api backup"


def _fleet_problems(health: FleetHealth) -> Sequence[str]:
    """Return the sentences of ``turku-api health --verbose``. Those about storages come first."""
    # The next step, which is indented, is for the page of one source.
    sentences = [each for group in health.groups for each in group.sentences if not each.startswith(" ")]
    return [*sentences, *health.long_queues]


COMMANDS = (
    Command(
        "status",
        "Show on one screen what this coordinator is, what it did last, what is next, and what is wrong.",
        configured(run),
        (
            ("Look at this coordinator:", "{prog}"),
            ("Look at it every ten seconds:", "watch -n 10 {prog}"),
            ("Print the number of machines that wait for a slot:", "{prog} --json | jq .waiting_machines"),
        ),
        (JSON_OBJECT,),
        "It changes nothing. 'turku-api health --verbose' names all storages, machines and sources with a problem.",
        status_screen.EXIT_CODES,
    ),
)
