"""The coordinator takes a source that `turku-agent check` takes, and refuses one that it refuses."""

from typing import Any

import pytest
from tests.support.api_cast import Cast
from tests.support.v1_client import Refused

from turku.agent import registration
from turku.agent.config.model import SourceConfig
from turku.api.backups.models import SnapshotModeChoices
from turku.policy import snapshot_mode

CASES: list[dict[str, Any]] = [
    {"path": "/a\tb"},
    {"path": "/srv/" + "x" * 256},
    {"path": "/srv/" + "x" * 255},
    {"path": "/" + "ä/" * 1500},
    {"exclude": ["x"] * 3000},
    {"exclude": ["x"] * 2000},
    {"exclude": ["a\tb"]},
    {"exclude": ["a\nb"]},
    {"exclude": "x"},
    {"filter": ["- *.tmp", "P lost+found/"]},
    {"filter": ["- x"] * 2001},
    {"filter": ["! "]},
    {"frequency": "daily, 0200"},
    {"frequency": "x" * 1001},
    {"retention": "last 5 days, forever"},
    {"bwlimit": "20M 0800-1800 mon-fri, 0"},
    {"bwlimit": -1},
    {"bwlimit": True},
    {"snapshot_mode": "auto"},
    {"snapshot_mode": "zfs"},
    {"comment": "x" * 200},
    {"comment": "x" * 201},
    {"comment": "a\x07b"},
    {"comment": 5},
    {"shared_service": "yes"},
    {"preserve_hard_links": None},
    {"compress": "on"},
    {"compress": "maybe"},
    {"compare_contents": True},
    {"compare_contents": "true"},
    {"expects_mount": "yes"},
    {"colour": [1, {"x": None}]},
    {"colour": "x" * 66_000},
    {"colour": 10**40},
]


@pytest.mark.parametrize("options", CASES, ids=lambda options: str(options)[:40])
def test_check_and_coordinator_agree(cast: Cast, options: dict[str, Any]) -> None:
    options = {"path": "/etc", **options}
    problems = [
        each for each in registration.source_warnings(SourceConfig("etc", options["path"], options)) if each.is_problem
    ]
    if problems:
        with pytest.raises(Refused, match=r"machine\.sources\.etc"):
            cast.alice.update_config({"etc": options})
    else:
        cast.alice.update_config({"etc": options})


def test_the_modes_are_those_of_the_column() -> None:
    assert sorted(snapshot_mode.NAMES) == sorted(SnapshotModeChoices.values)
