"""Limits by time of day: kept as they were sent, told to storages that know them, and as a number to the others."""

from typing import Any

import pytest
from tests.support.api_cast import Cast
from tests.support.v1_client import Refused

from turku.api.backups.models import Source


def order(cast: Cast, bwlimit: Any) -> Any:
    cast.alice.update_config({"etc": {"path": "/etc", "bwlimit": bwlimit}})
    return cast.bob.due(cast.alice.uuid)["etc"]


def test_a_storage_gets_the_windows_and_the_limit_of_the_moment(cast: Cast) -> None:
    ordered = order(cast, "3M 0000-2359, 3M")
    assert ordered["bandwidth_windows"] == "3M 0000-2359, 3M"
    assert ordered["bwlimit"] == 3 * 1024
    assert Source.objects.get(name="etc").other_options == {"bwlimit": "3M 0000-2359, 3M"}


@pytest.mark.parametrize(("bwlimit", "number"), [(512, 512), ("512", 512), ("20M", 20480), (None, None), (0, None)])
def test_a_limit_that_is_always_the_same_is_a_number_as_it_was(cast: Cast, bwlimit: Any, number: int | None) -> None:
    ordered = order(cast, bwlimit)
    assert ordered["bwlimit"] == number
    assert "bandwidth_windows" not in ordered
    assert Source.objects.get(name="etc").other_options == {}


def test_a_number_takes_the_place_of_windows_and_they_of_it(cast: Cast) -> None:
    order(cast, "3M 0000-2359, 3M")
    assert order(cast, 9)["bwlimit"] == 9
    assert "bandwidth_windows" in order(cast, "3M 0000-2359, 3M")
    assert order(cast, None)["bwlimit"] is None


@pytest.mark.parametrize("bwlimit", ["20M 0800-1800", "20M 0800-2500, 0", "fast 0800-1800, 0", "1 mon, " * 30 + "0"])
def test_windows_that_make_no_sense_are_refused_with_their_place(cast: Cast, bwlimit: str) -> None:
    with pytest.raises(Refused) as caught:
        order(cast, bwlimit)
    assert caught.value.status == 400
    assert "machine.sources.etc.bwlimit" in caught.value.sentence
