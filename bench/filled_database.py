"""A coordinator's database as a large fleet leaves it, written in bulk.

Run as a child of a benchmark with the coordinator's own environment (TURKU_STATE_DIR, TURKU_DATABASE_URL):
`python -m bench.filled_database --callers FILE`. FILE gets a line ``UUID SECRET`` for each machine that can call.
Everything follows from the numbers of the rows: two runs of one size write the same fleet.
"""

import argparse
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

MACHINES = 100_000
SOURCES_PER_MACHINE = 3
STORAGES = 40
DUE_PER_HUNDRED = 3
"""Machines of a hundred that have one source due. Nobody reports in a benchmark, so they stay due."""
_ENVIRONMENTS, _SERVICES = 60, 400
_SOURCES = (("etc", "/etc"), ("home", "/home"), ("database", "/var/lib/postgresql"), ("www", "/srv/www"))
_FREQUENCIES = ("daily", "daily, 0100-0500", "weekly", "sunday, 0200-0600", "cron H H * * *")


def machine_uuid(number: int) -> uuid.UUID:
    """The UUID of that machine."""
    return uuid.UUID(bytes=hashlib.md5(b"machine %d" % number, usedforsecurity=False).digest(), version=4)


def machine_secret(number: int) -> str:
    """The secret of that machine: 30 letters and digits, as agents make them."""
    return hashlib.sha256(b"secret %d" % number).hexdigest()[:30]


def is_due(number: int) -> bool:
    """Return True if that machine has a source due."""
    return number % 100 < DUE_PER_HUNDRED


class Filler:
    """Writes rows of models, faster than the models would."""

    def __init__(self, now: datetime) -> None:
        from django.db import connection

        self.connection = connection
        self.now = now

    def write(self, model: Any, rows: Iterable[dict[str, Any]], **same: Any) -> None:
        """Write the rows (field name to value, the same fields in each) with ``same`` and the model's defaults."""
        iterator = iter(rows)
        first = next(iterator)
        fields = {field.attname: field for field in model._meta.concrete_fields if not field.generated}
        defaults = {
            name: field.get_default() for name, field in fields.items() if name not in first and name not in same
        }
        given_key = model._meta.pk.attname in first
        if not given_key:
            defaults.pop(model._meta.pk.attname)
        fixed = {
            name: fields[name].get_db_prep_save(value, self.connection) for name, value in {**defaults, **same}.items()
        }
        varying = {name: fields[name] for name in first}
        columns = [fields[name].column for name in (*fixed, *varying)]

        def prepared() -> Iterator[list[Any]]:
            yield [*fixed.values(), *self._prepared(varying, first)]
            for row in iterator:
                yield [*fixed.values(), *self._prepared(varying, row)]

        self._copy(model._meta.db_table, columns, prepared())
        if given_key:
            self._reset_sequence(model)

    def _prepared(self, fields: dict[str, Any], row: dict[str, Any]) -> list[Any]:
        return [field.get_db_prep_save(row[name], self.connection) for name, field in fields.items()]

    def _copy(self, table: str, columns: list[str], rows: Iterator[list[Any]]) -> None:
        names = ", ".join(f'"{column}"' for column in columns)
        with self.connection.cursor() as cursor:
            if self.connection.vendor == "postgresql":
                with cursor.copy(f'COPY "{table}" ({names}) FROM STDIN') as copy:
                    for row in rows:
                        copy.write_row(row)
            else:
                places = ", ".join("?" * len(columns))
                cursor.connection.executemany(f'INSERT INTO "{table}" ({names}) VALUES ({places})', rows)

    def _reset_sequence(self, model: Any) -> None:
        from django.core.management.color import no_style

        with self.connection.cursor() as cursor:
            for statement in self.connection.ops.sequence_reset_sql(no_style(), [model]):
                cursor.execute(statement)


def fill(*, machines: int, now: datetime) -> None:
    """Write the whole fleet with two days of runs and its audit log."""
    from django.contrib.auth.models import User
    from django.db import transaction

    from turku.api.fleet.identity.auths import create
    from turku.api.fleet.models import AuthKind

    filler = Filler(now)
    with transaction.atomic():
        User.objects.create_superuser("operator", password=None)
        machine_auth, _secret = create(AuthKind.MACHINE, "machines", now=now)
        storage_auth, _secret = create(AuthKind.STORAGE, "storages", now=now)
        _storages(filler, storage_auth)
        _machines(filler, machine_auth, machines)
        _sources(filler, machines)
        _history(filler, machines)
    with filler.connection.cursor() as cursor:
        # PostgreSQL does it by itself after a while, SQLite when `turku-api` asks it to.
        cursor.execute("VACUUM ANALYZE" if filler.connection.vendor == "postgresql" else "PRAGMA optimize")


def _storages(filler: Filler, auth: Any) -> None:
    from turku.api.fleet.identity import keyring
    from turku.api.fleet.identity.keyring import Purpose
    from turku.api.fleet.models import FilterSet, Policy, Storage

    now = filler.now
    rows = (
        {
            "id": number + 1,
            "name": f"storage-{number:02}",
            "secret_hash": keyring.current().hash(Purpose.STORAGE, machine_secret(-number)),
            "ssh_ping_host": f"storage-{number:02}.example.com",
            "space_available": 1e6 + number,
            "date_checked_in": now - timedelta(minutes=number % 5),
        }
        for number in range(STORAGES)
    )
    keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"]
    common = {"ssh_ping_host_keys": keys, "ssh_ping_user": "turku", "space_total": 2e6, "comment": ""}
    filler.write(Storage, rows, auth_id=auth.pk, date_registered=now - timedelta(days=400), **common)
    for name in ("caches", "logs", "browser-data"):
        FilterSet.objects.create(name=name, rules=[f"- /var/{name}/{number}/***" for number in range(5)])
    Policy.objects.create(retention_floor="last 14 days")


def _machines(filler: Filler, auth: Any, count: int) -> None:
    from turku.api.fleet.identity import keyring
    from turku.api.fleet.identity.keyring import Purpose
    from turku.api.fleet.models import Machine

    ring, now = keyring.current(), filler.now
    rows = (
        {
            "id": number + 1,
            "uuid": machine_uuid(number),
            "secret_hash": ring.hash(Purpose.MACHINE, machine_secret(number)),
            "storage_id": None if number % 1000 == 999 else number % STORAGES + 1,
            "environment_name": f"environment-{number % _ENVIRONMENTS}",
            "service_name": f"service-{number % _SERVICES}",
            "unit_name": f"unit-{number}",
            "ssh_key_fingerprint": hashlib.sha256(b"key %d" % number).hexdigest(),
            "active": number % 500 != 499,
            "date_registered": now - timedelta(minutes=5 * number % 500_000),
            # A fleet that checks in every five minutes, and a few that do not.
            "date_checked_in": now - timedelta(seconds=90 + number % 300, days=2 if number % 400 == 399 else 0),
        }
        for number in range(count)
    )
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    filler.write(Machine, rows, auth_id=auth.pk, ssh_public_key=key, published=True)


def _source_id(number: int) -> uuid.UUID:
    return uuid.UUID(bytes=hashlib.md5(b"source %d" % number, usedforsecurity=False).digest(), version=4)


def _sources(filler: Filler, machines: int) -> None:
    from turku.api.backups.models import Source

    now = filler.now
    rows = (
        {
            "id": _source_id(number),
            "machine_id": machine + 1,
            "name": _SOURCES[index][0],
            "path": _SOURCES[index][1],
            "frequency": _FREQUENCIES[number % len(_FREQUENCIES)],
            "filter": ["merge logs"] if number % 20 == 0 else [],
            "exclude": ["*.tmp", "/cache"] if number % 3 == 0 else [],
            "published": number % 50 != 49,
            "date_next_backup": _next_backup(machine, index, number, now),
            "date_expected": _next_backup(machine, index, number, now),
            "date_last_backed_up": now - timedelta(seconds=number * 7919 % 86_400),
            "success": number % 200 != 3,
            "failure_count": number % 7 + 1 if number % 200 == 3 else 0,
            "quarantined": number % 5000 == 11,
        }
        for machine in range(machines)
        for index in range(SOURCES_PER_MACHINE)
        for number in (machine * SOURCES_PER_MACHINE + index,)
    )
    filler.write(Source, rows, date_added=now - timedelta(days=100))


def _next_backup(machine: int, index: int, number: int, now: datetime) -> datetime:
    if index == 0 and is_due(machine):
        return now - timedelta(seconds=60 + number % 3600)
    if number % 997 == 7:
        return now - timedelta(days=1)
    return now + timedelta(hours=6, seconds=number * 104_729 % 86_400)


def _history(filler: Filler, machines: int) -> None:
    from turku.api.audit.models import AuditEntry
    from turku.api.backups.models import BackupRun, SourceChange

    now, sources = filler.now, machines * SOURCES_PER_MACHINE
    runs = (
        {
            # Not in the order of the machines, as schedules spread them over the day.
            "source_id": _source_id(source := number * 104_729 % sources),
            "storage_id": source // SOURCES_PER_MACHINE % STORAGES + 1,
            "date": (ended := now - timedelta(seconds=(2 * sources - number) * 172_800 // (2 * sources))),
            "success": number % 200 != 3,
            "snapshot": "" if number % 200 == 3 else f"etc_{ended:%Y%m%d-%H%M%S}_{number % 65536:04x}",
            "date_begin": ended - timedelta(seconds=20 + number % 100),
            "date_end": ended,
        }
        for number in range(2 * sources)
    )
    filler.write(BackupRun, runs, summary="Number of files: 5,000\nTotal transferred file size: 1,234 bytes")
    changes = (
        {
            "source_id": _source_id(number * 37 % sources),
            "date": now - timedelta(minutes=number),
            "date_effective": None if number % 10 == 9 else now + timedelta(days=7, minutes=-number),
        }
        for number in range(sources // 60)
    )
    old = {"retention": "last 30 days", "snapshot_mode": ""}
    filler.write(SourceChange, changes, weakenings=["shorter retention"], old=old, new={"retention": "last 1 days"})
    entries = (
        {
            "date": now - timedelta(seconds=(4 * machines - entry) * 8),
            "actor": str(machine_uuid(number)),
            "subject_key": str(machine_uuid(number)),
            "subject": f"environment-{number % _ENVIRONMENTS}-service-{number % _SERVICES}-unit-{number}",
            "action": ("machine.registered", "machine.changed", "source.changed", "source.added")[entry % 4],
            "weakens": entry % 100 == 99,
            "address": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        }
        for entry in range(4 * machines)
        for number in (entry // 4,)
    )
    filler.write(AuditEntry, entries, actor_kind="machine", subject_kind="machine", old={}, new={"comment": "new"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--callers", type=Path, required=True)
    parser.add_argument("--machines", type=int, default=MACHINES)
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "turku.api.project.settings")
    import django

    django.setup()
    from turku.core.clock import SYSTEM_CLOCK

    fill(machines=arguments.machines, now=SYSTEM_CLOCK.now())
    with arguments.callers.open("w") as callers:
        for number in range(arguments.machines):
            # Those the operator switched off are refused: they would measure something else.
            if number % 500 != 499:
                callers.write(f"{machine_uuid(number)} {machine_secret(number)}\n")


if __name__ == "__main__":
    main()
