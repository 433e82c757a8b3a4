"""No path that a profile names leads out of the directories that a machine accepts, however it is written."""

import os
from pathlib import Path

from hypothesis import event, example, given
from hypothesis import strategies as st

from turku.errors import InvalidValue
from turku.policy.declaration import profiles
from turku.policy.declaration.profiles import Profile

PARTS = st.sampled_from(["", ".", "..", "srv", "srv2", "www", "etc", "a b", "SRV", "srv\n", "s\u0131rv", "...", "..x"])
paths = st.lists(PARTS, max_size=6).map(lambda parts: "/" + "/".join(parts)) | st.text(max_size=20)
directories = st.lists(
    st.sampled_from(["/srv", "/srv/www", "/", "/etc/a b", "/srv2"]), min_size=1, max_size=3, unique=True
)


@given(path=paths, accepts=directories)
@example(path="/srv/../etc", accepts=["/srv"])
@example(path="/srv2", accepts=["/srv"])
@example(path="//srv", accepts=["/srv"])
def test_what_is_accepted_lies_below_by_every_reading(path: str, accepts: list[str]) -> None:
    try:
        below = profiles.accepted_below(path, accepts)
    except InvalidValue:
        event("refused")
        return
    event("accepted")
    assert below in accepts
    for reading in (os.path.normpath, os.path.abspath, os.path.realpath):
        assert Path(str(reading(path))).is_relative_to(below)
    assert ".." not in os.path.relpath(path, below).split("/")


@given(path=paths, accepts=directories)
def test_a_source_is_taken_whole_or_refused_with_a_reason(path: str, accepts: list[str]) -> None:
    profile = Profile("web", {"www": {"path": path}, "other": {"path": accepts[0]}})
    choice = profiles.choose([profile], accepts=accepts, own=())
    assert {*(each.name for each in choice.taken), *(each.name for each in choice.refused)} == {"www", "other"}
    assert all(each.reason for each in choice.refused)
    assert "other" in {each.name for each in choice.taken}


@given(
    own=st.lists(st.sampled_from(["a", "b", "c", "C", "D"]), unique_by=str.lower),
    offered=st.lists(
        st.lists(st.sampled_from(["a", "b", "c", "d", "A", "D"]), unique=True, max_size=4), min_size=1, max_size=4
    ),
)
def test_no_two_sources_share_a_name_and_the_machine_s_own_wins(own: list[str], offered: list[list[str]]) -> None:
    proposed = [
        Profile(f"profile {number}", {name: {"path": "/srv"} for name in names}) for number, names in enumerate(offered)
    ]
    choice = profiles.choose(proposed, accepts=["/srv"], own=own)
    together = [*own, *(each.name for each in choice.taken)]
    assert len({name.lower() for name in together}) == len(together)
    assert len(choice.taken) + len(choice.refused) == sum(map(len, offered))
    # The order in which the coordinator sends them decides nothing.
    again = profiles.choose(proposed[::-1], accepts=["/srv"], own=own)
    assert {(each.name, each.profile) for each in again.taken} == {(each.name, each.profile) for each in choice.taken}
