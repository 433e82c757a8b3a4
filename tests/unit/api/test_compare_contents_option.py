"""A source's ``compare_contents``: checked by the coordinator, and passed to the storage where it is set."""

from typing import Any

import pytest
from tests.support.api_cast import Cast
from tests.support.v1_client import Refused


@pytest.mark.parametrize(
    ("options", "sent"),
    [({}, None), ({"compare_contents": None}, None), ({"compare_contents": False}, None),
     ({"compare_contents": True}, True)],
)  # fmt: skip
def test_it_is_sent_where_it_is_set(cast: Cast, options: dict[str, Any], sent: bool | None) -> None:
    cast.alice.update_config({"etc": {"path": "/etc", **options}, "home": {"path": "/home"}})
    assert cast.bob.due(cast.alice.uuid)["etc"].get("compare_contents") == sent


@pytest.mark.parametrize("value", ["yes", 1, ["on"]])
def test_anything_else_is_refused(cast: Cast, value: Any) -> None:
    with pytest.raises(Refused, match="compare_contents: must be true or false"):
        cast.alice.update_config({"etc": {"path": "/etc", "compare_contents": value}})
