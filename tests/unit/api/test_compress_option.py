"""A source's ``compress``: checked by the coordinator, and passed to the storage where it says something."""

from typing import Any

import pytest
from tests.support.api_cast import Cast
from tests.support.v1_client import Refused


@pytest.mark.parametrize(
    ("options", "sent"),
    [({}, None), ({"compress": "auto"}, None), ({"compress": None}, None), ({"compress": "on"}, "on"),
     ({"compress": "off"}, "off"), ({"compress": False}, "off"), ({"compress": True}, "on")],
)  # fmt: skip
def test_it_is_sent_where_it_says_something(cast: Cast, options: dict[str, Any], sent: str | None) -> None:
    cast.alice.update_config({"etc": {"path": "/etc", **options}, "home": {"path": "/home"}})
    assert cast.bob.due(cast.alice.uuid)["etc"].get("compress") == sent


@pytest.mark.parametrize("value", ["sometimes", 5, ["on"]])
def test_anything_else_is_refused(cast: Cast, value: Any) -> None:
    with pytest.raises(Refused, match="compress: must be one of"):
        cast.alice.update_config({"etc": {"path": "/etc", "compress": value}})
