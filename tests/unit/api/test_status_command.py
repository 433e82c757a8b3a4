"""``turku-api status``: one screen about the coordinator and the fleet, and the same as JSON."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.api_cast import Cast, turku_api

from turku.api.commands import status
from turku.api.fleet.models import Storage
from turku.api.project.recovery import backup
from turku.core.cli import systemd_timers
from turku.core.cli.systemd_timers import Timer
from turku.core.clock import SYSTEM_CLOCK

pytestmark = pytest.mark.django_db
NOW = SYSTEM_CLOCK.now()
SERVICE = Timer("turku-api", is_service_running=True)
BACKUP = Timer("turku-api-backup", is_installed=True, is_active=True, next_at=NOW + timedelta(hours=3))


@pytest.fixture
def booted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_timers(*timers: Timer) -> None:
        monkeypatch.setattr(systemd_timers, "is_booted", lambda: True)
        monkeypatch.setattr(systemd_timers, "read", lambda _names: timers)

    return set_timers


@pytest.mark.usefixtures("cast")
def test_a_coordinator_that_is_well_says_so_in_80_columns(booted: Callable[..., None]) -> None:
    booted(SERVICE, BACKUP)
    code, text = turku_api("status")
    assert (code, text.splitlines()[-1]) == (0, "No problem found."), text
    assert max(len(line) for line in text.splitlines() if "/" not in line) <= 80
    for said in ("running", "1 storage", "1 machine", "turku-api-backup  in 2 h", "0 sessions at work"):
        assert said in text, text


def test_what_is_wrong_with_host_and_fleet_is_told(cast: Cast, booted: Callable[..., None]) -> None:
    booted(Timer("turku-api"), Timer("turku-api-backup", is_installed=True, has_service_failed=True))
    Storage.objects.update(faults=["volume data is full"], fault_kind="full")
    code, text = turku_api("status", "--json")
    assert code == 1
    found = json.loads(text)
    for said in ("turku-api.service does not run", "backup.timer does not run", "backup.service failed"):
        assert said in "\n".join(found["problems"])
    assert f"storage {Storage.objects.get()}: full: volume data is full" in found["problems"]
    assert found["is_service_running"] is False
    assert found["machines"] == 1


@pytest.mark.parametrize(("days", "said"), [(40, None), (5, "ends soon"), (-1, "has ended")])
@pytest.mark.usefixtures("cast")
def test_a_certificate_that_ends_soon_is_a_problem(
    booted: Callable[..., None], monkeypatch: pytest.MonkeyPatch, settings: Any, days: int, said: str | None
) -> None:
    booted(SERVICE)
    settings.TURKU_ENVIRONMENT = replace(
        settings.TURKU_ENVIRONMENT, tls_certificate=Path("/etc/turku-api/tls.crt"), tls_key=Path("/etc/turku-api/key")
    )
    monkeypatch.setattr(status, "_end_of", lambda _path: SYSTEM_CLOCK.now() + timedelta(days=days, minutes=1))
    code, text = turku_api("status")
    assert "/etc/turku-api/tls.crt, ends" in text
    assert code == (0 if said is None else 1)
    assert said is None or f"/etc/turku-api/tls.crt {said}: renew it" in " ".join(text.split())


@pytest.mark.usefixtures("cast")
def test_without_systemd_nothing_is_said_to_be_stopped() -> None:
    if systemd_timers.is_booted():
        pytest.skip("systemd runs here")
    code, text = turku_api("status")
    assert code == 0
    assert "systemd does not run here" in " ".join(text.split())


@pytest.mark.parametrize(("days", "code"), [(2, 0), (4, 1)])
@pytest.mark.usefixtures("cast")
def test_an_old_backup_of_the_coordinator_itself_is_a_problem(
    booted: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: int, code: int
) -> None:
    booted(SERVICE, BACKUP)
    monkeypatch.setattr(status, "DEFAULT_DIRECTORY", tmp_path)
    (tmp_path / f"{SYSTEM_CLOCK.now() - timedelta(days=days):%Y-%m-%dT%H%M%SZ}").mkdir()
    found, text = turku_api("status")
    assert found == code
    assert ("the newest backup of this coordinator is 4 d old" in " ".join(text.split())) is bool(code)


def test_the_newest_own_backup_is_found_by_its_name(tmp_path: Path) -> None:
    assert backup.newest(tmp_path) is None
    assert backup.newest(tmp_path / "missing") is None
    for name in ("2026-11-29T030000Z", "2026-11-30T030000Z", "2026-11-30T030000Z-2", ".unfinished-1", "other"):
        (tmp_path / name).mkdir()
    assert backup.newest(tmp_path) == datetime(2026, 11, 30, 3, tzinfo=UTC)
