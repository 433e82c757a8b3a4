"""The effect of a machine's configuration on its sources."""

from datetime import timedelta
from typing import Any

import pytest
from tests.support.api_cast import Cast
from tests.support.v1_client import Refused

from turku.api.backups.models import SOURCES_LIMIT, Source
from turku.api.fleet.models import FilterSet
from turku.core.clock import SYSTEM_CLOCK


def refusal(cast: Cast, sources: dict[str, Any]) -> str:
    with pytest.raises(Refused) as caught:
        cast.alice.update_config(sources)
    assert caught.value.status == 400
    return caught.value.sentence


def test_a_new_source_is_due_at_once_with_the_defaults(cast: Cast) -> None:
    order = cast.alice.due()["etc"]
    assert order == {
        "path": "/etc",
        "retention": "last 5 days, earliest of month",
        "bwlimit": None,
        "filter": [],
        "exclude": [],
        "shared_service": False,
        "large_rotating_files": False,
        "large_modifying_files": False,
        "snapshot_mode": None,
        "preserve_hard_links": False,
        "period_seconds": 24 * 3600,
        "storage": order["storage"],
    }
    assert order["storage"]["name"] == "primary"
    assert order["storage"]["ssh_ping_port"] == 22
    assert Source.objects.get(name="etc").frequency == "daily"


def test_options_reach_agent_and_storage(cast: Cast) -> None:
    options = {
        "path": "/srv/data",
        "retention": "last 10 snapshots",
        "bwlimit": 512,
        "filter": ["- *.tmp"],
        "exclude": ["*.log"],
        "shared_service": True,
        "large_rotating_files": True,
        "large_modifying_files": True,
        "snapshot_mode": "link-dest",
        "preserve_hard_links": True,
    }
    cast.alice.update_config({"data": {**options, "frequency": "weekly", "comment": "all of it"}})
    for order in (cast.alice.due()["data"], cast.bob.due(cast.alice.uuid)["data"], cast.alice.restorable()["data"]):
        del order["storage"]
        assert order == {**options, "period_seconds": 7 * 24 * 3600}


def test_an_option_that_is_gone_has_its_default_again(cast: Cast) -> None:
    cast.alice.update_config(
        {"etc": {"path": "/etc", "bwlimit": 9, "exclude": ["*.log"], "large_rotating_files": True}}
    )
    cast.alice.update_config({"etc": {"path": "/etc", "bwlimit": None}})
    order = cast.alice.due()["etc"]
    assert (order["bwlimit"], order["exclude"], order["large_rotating_files"]) == (None, [], False)


def test_unknown_options_are_kept_as_they_were_sent(cast: Cast) -> None:
    cast.alice.update_config({"etc": {"path": "/etc", "colour": {"deep": [1, None, "x"]}}})
    assert Source.objects.get(name="etc").other_options == {"colour": {"deep": [1, None, "x"]}}


def test_a_source_no_longer_named_is_unpublished_and_comes_back(cast: Cast) -> None:
    key = Source.objects.get(name="home").pk
    cast.alice.update_config({"etc": {"path": "/etc"}})
    assert set(cast.alice.due()) == {"etc"}
    assert set(cast.alice.restorable()) == {"etc", "home"}
    cast.alice.update_config({"home": {"path": "/home"}})
    assert set(cast.alice.due()) == {"home"}
    assert Source.objects.get(name="home").pk == key


def test_all_faults_are_reported_together_and_nothing_is_changed(cast: Cast) -> None:
    before = list(Source.objects.order_by("name").values())
    sentence = refusal(
        cast,
        {
            "etc": {"path": "/etc", "frequency": "whenever", "retention": 5, "bwlimit": "fast"},
            "home": {"path": "relative", "shared_service": "yes", "exclude": "x", "filter": [1]},
            "new": {"snapshot_mode": "magic"},
        },
    )
    for field in (
        *("machine.sources.etc.frequency", "machine.sources.etc.retention", "machine.sources.etc.bwlimit"),
        *("machine.sources.home.path", "machine.sources.home.shared_service", "machine.sources.home.exclude"),
        *("machine.sources.home.filter", "machine.sources.new.snapshot_mode", "machine.sources.new.path"),
    ):
        assert f"{field}:" in sentence
    assert list(Source.objects.order_by("name").values()) == before


@pytest.mark.parametrize("name", ["../x", ".", "..", "", "a/b", "x\ny", "e" * 300, "etc.snapshots"])
def test_names_that_could_leave_a_directory_are_refused(cast: Cast, name: str) -> None:
    assert "machine.sources" in refusal(cast, {name: {"path": "/etc"}})


def test_twins_by_case_are_refused_also_beside_former_sources(cast: Cast) -> None:
    refusal(cast, {"Data": {"path": "/a"}, "data": {"path": "/b"}})
    refusal(cast, {"ETC": {"path": "/etc"}})


@pytest.mark.parametrize("path", ["/etc\nuid = root", "", "etc", "/" + "x" * 5000, 5, ["/etc"]])
def test_paths_that_no_rsyncd_can_offer_are_refused(cast: Cast, path: Any) -> None:
    assert "machine.sources.etc.path" in refusal(cast, {"etc": {"path": path}})


def test_unknown_options_are_bounded(cast: Cast) -> None:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    for other in ({"a": "x" * 70_000}, {"a": deep}, {"a": 10**30}):
        assert "machine.sources.etc" in refusal(cast, {"etc": {"path": "/etc", **other}})


def test_the_number_of_sources_is_bounded_over_time(cast: Cast) -> None:
    refusal(cast, {f"s{number}": {"path": "/x"} for number in range(SOURCES_LIMIT + 1)})
    cast.alice.update_config({f"s{number}": {"path": "/x"} for number in range(SOURCES_LIMIT - 2)})
    assert "machine.sources" in refusal(cast, {"one-more": {"path": "/x"}})


def test_filter_sets_are_expanded_each_once(cast: Cast) -> None:
    FilterSet.objects.create(name="caches", rules=["- /var/cache/***", "merge logs"])
    FilterSet.objects.create(name="logs", rules=["- *.log"])
    cast.alice.update_config({"etc": {"path": "/etc", "filter": ["merge caches", ". logs", "+ /keep"]}})
    assert cast.alice.due()["etc"]["filter"] == ["- /var/cache/***", "- *.log", "+ /keep"]


def test_an_unknown_filter_set_is_refused(cast: Cast) -> None:
    assert "machine.sources.etc.filter" in refusal(cast, {"etc": {"path": "/etc", "filter": ["merge nothing"]}})


def test_a_filter_set_that_is_gone_fails_its_source_and_no_other(cast: Cast) -> None:
    FilterSet.objects.create(name="logs", rules=["- *.log"])
    cast.alice.update_config({"etc": {"path": "/etc", "filter": ["merge logs"]}, "home": {"path": "/home"}})
    FilterSet.objects.all().delete()
    assert set(cast.alice.due()) == {"home"}
    etc = Source.objects.get(name="etc")
    assert etc.success is False
    assert "logs" in etc.runs.get().summary
    assert set(cast.alice.restorable()) == {"etc", "home"}


def test_a_new_frequency_moves_a_finished_source_and_no_waiting_one(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc")
    weekly = {"frequency": "weekly"}
    cast.alice.update_config({"etc": {"path": "/etc", **weekly}, "home": {"path": "/home", **weekly}})
    assert set(cast.alice.due()) == {"home"}
    before = Source.objects.get(name="etc").date_next_backup
    cast.alice.update_config({"etc": {"path": "/etc", "frequency": "hourly"}})
    moved = Source.objects.get(name="etc").date_next_backup
    assert moved < before
    assert moved <= SYSTEM_CLOCK.now() + timedelta(hours=2)
