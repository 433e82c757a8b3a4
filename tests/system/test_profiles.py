"""Profiles with all three programs: an operator sets one, and the machine takes it at its next checkin."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet
from tests.support.trees import listing

from turku.api.backups.profiles import offers
from turku.demo import programs
from turku.demo.private_machine import PrivateMachine

pytestmark = pytest.mark.xdist_group("system-profiles")


@dataclass
class Operated:
    """A machine that accepts profiles below one directory, and the operator at its coordinator."""

    fleet: Fleet
    machine: PrivateMachine
    accepted: Path
    directory: Path

    def turku_api(self, *arguments: str, check: bool = True) -> str:
        said = self.fleet.coordinator.manage(*arguments, check=check)
        if {"set", "remove"} & set(arguments):
            # The workers of the coordinator notice a change within this time.
            time.sleep(offers.KEPT_SECONDS)
        return said

    def set_profile(self, name: str, sources: Mapping[str, Any], **more: Any) -> str:
        path = self.directory / f"{name}.json"
        content = {"name": name, "machines": {"environment": "shop"}, "sources": sources, **more}
        path.write_text(json.dumps(content))
        return self.turku_api("profile", "set", str(path), "--yes")

    def check(self) -> str:
        found = programs.run(
            *("turku-agent", "check", "--config-dir", str(self.machine.config_dir)), expected_codes=range(2)
        )
        return found.stdout.decode()


@pytest.fixture(scope="module")
def operated(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Operated:
    directory = tmp_path_factory.mktemp("profiles")
    accepted = directory / "accepted"
    for name in ("www/index.html", "www/cache/old", "mail/inbox", "own/file"):
        (accepted / name).parent.mkdir(parents=True, exist_ok=True)
        (accepted / name).write_text(name)
    (directory / "outside").mkdir()
    storage = fleet.storage("profiles")
    machine = fleet.machine(
        "shop-0",
        {"own": {"path": str(accepted / "own")}},
        storage=storage,
        environment_name="shop",
        accept_profiles=[str(accepted)],
    )
    return Operated(fleet, machine, accepted, directory)


def takes_it_at_its_next_checkin_and_backs_it_up(operated: Operated) -> None:
    said = operated.set_profile(
        "web",
        {
            "www": {"path": str(operated.accepted / "www"), "exclude": ["/cache"]},
            "elsewhere": {"path": str(operated.directory / "outside")},
            "own": {"path": str(operated.accepted / "mail")},
        },
        defaults={"frequency": "daily", "exclude": ["*.tmp"]},
    )
    assert "Offered to 1 machine, of which 1 accepts profiles: shop-shop-0" in said
    assert "own source, which wins: shop-shop-0: own" in said
    operated.machine.ping()
    [snapshot] = operated.fleet.snapshots(operated.machine, "www")
    assert listing(snapshot) == {"index.html"}
    assert sorted(operated.fleet.source_names(operated.machine)) == ["own", "www"]
    [own] = operated.fleet.snapshots(operated.machine, "own")
    assert listing(own) == {"file"}
    shown = operated.turku_api("profile", "show", "web")
    assert "Offered to 1 machine: taken by 1, refused by 1, 0 accept no profiles" in shown
    assert "own: this machine has a source of that name of its own, which wins" in shown
    assert "is not below a directory of this machine's accept_profiles" in shown
    check = operated.check()
    assert f"www: {operated.accepted / 'www'} (profile web)" in check
    assert "note: profile web: source elsewhere is refused" in check


def is_reached_by_a_change_and_fetches_nothing_twice(operated: Operated) -> None:
    operated.set_profile("web", {"www": {"path": str(operated.accepted / "www")}})
    assert "www" in operated.check()
    store = operated.machine.var_dir / "profiles.json"
    before = store.stat().st_mtime_ns
    operated.machine.ping()
    assert store.stat().st_mode & 0o777 == 0o600
    assert store.stat().st_mtime_ns != before
    kept = store.stat().st_mtime_ns
    operated.machine.ping()
    assert store.stat().st_mtime_ns == kept
    operated.fleet.make_due(operated.machine, "www")
    operated.machine.ping()
    assert {"cache", "cache/old"} <= listing(operated.fleet.snapshots(operated.machine, "www")[-1])


def is_told_of_a_removal_that_ends_no_backup_silently(operated: Operated) -> None:
    snapshots = operated.fleet.snapshots(operated.machine, "www")
    said = operated.turku_api("profile", "remove", "web", "--yes")
    assert "- www" in said
    assert "weakens: no longer declared" in said
    ended = operated.machine.ping()
    assert "no longer declared" in "\n".join(ended.last_lines)
    assert operated.fleet.source_state(operated.machine, "www")["published"] == 0
    assert operated.fleet.snapshots(operated.machine, "www") == snapshots
    assert "www" in operated.turku_api("health", "--verbose", check=False)
    assert "no longer declared" in "\n".join(operated.machine.update_config().last_lines)


def test_a_machine_follows_a_profile_from_its_offer_to_its_removal(operated: Operated) -> None:
    takes_it_at_its_next_checkin_and_backs_it_up(operated)
    is_reached_by_a_change_and_fetches_nothing_twice(operated)
    is_told_of_a_removal_that_ends_no_backup_silently(operated)
