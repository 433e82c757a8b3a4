"""A source's ``one_file_system``: checked by the coordinator, settled by it, and passed on where it is on."""

from typing import Any

import pytest
from tests.support.api_cast import Cast
from tests.support.v1_client import Refused

from turku.api.backups.models import Source, SourceChange


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"path": "/etc"}, None),
        ({"path": "/etc", "one_file_system": None}, None),
        ({"path": "/etc", "one_file_system": False}, None),
        ({"path": "/etc", "one_file_system": True}, True),
        ({"path": "/"}, True),
        ({"path": "/", "one_file_system": False}, None),
    ],
)
def test_a_storage_gets_it(cast: Cast, options: dict[str, Any], sent: bool | None) -> None:
    cast.alice.update_config({"etc": options})
    assert cast.bob.due(cast.alice.uuid)["etc"].get("one_file_system") is sent
    assert cast.alice.due()["etc"].get("one_file_system") is sent


def test_another_value_is_refused(cast: Cast) -> None:
    with pytest.raises(Refused, match="one_file_system: must be true or false"):
        cast.alice.update_config({"etc": {"path": "/etc", "one_file_system": "yes"}})


def test_turning_it_on_weakens_a_source_and_off_does_not(cast: Cast) -> None:
    cast.alice.update_config({"etc": {"path": "/etc"}})
    cast.alice.update_config({"etc": {"path": "/etc", "one_file_system": True}})
    change = SourceChange.objects.get(source__name="etc")
    assert change.weakenings == ["file systems below it left out"]
    assert (change.old["one_file_system"], change.new["one_file_system"]) == (False, True)
    change.delete()
    cast.alice.update_config({"etc": {"path": "/etc", "one_file_system": False}})
    assert not SourceChange.objects.filter(source__name="etc").exists()
    assert Source.objects.get(name="etc").other_options == {"one_file_system": False}
