"""The snapshot mode that results for a source, on storages and at the coordinator."""

from functools import partial
from itertools import product

import pytest

from turku.errors import InvalidValue
from turku.policy import snapshot_mode
from turku.policy.snapshot_mode import AUTO, BTRFS, LINK_DEST, NAMES, NONE, REFLINK
from turku.policy.source_options import OPTIONS


@pytest.mark.parametrize(
    ("requested", "default", "has_large_files", "expected"),
    [
        *(("", LINK_DEST, False, LINK_DEST), ("", LINK_DEST, True, NONE), ("", NONE, True, NONE)),
        *(("", BTRFS, True, BTRFS), ("", REFLINK, True, REFLINK), ("", AUTO, True, AUTO)),
        *((LINK_DEST, NONE, True, LINK_DEST), (AUTO, NONE, True, AUTO), (NONE, BTRFS, False, NONE)),
    ],
)
def test_large_files_keep_history_only_where_it_is_asked_for_or_blocks_are_shared(
    requested: str, default: str, has_large_files: bool, expected: str
) -> None:
    assert snapshot_mode.selected(requested, default, has_large_files=has_large_files) == expected


@pytest.mark.parametrize(
    ("is_btrfs", "can_clone", "has_large_files", "allowed", "expected"),
    [
        *((True, True, False, [], BTRFS), (False, True, False, [], LINK_DEST), (False, True, True, [], REFLINK)),
        *((False, False, True, [], NONE), (False, False, True, [LINK_DEST, AUTO], LINK_DEST)),
        *((False, True, True, [LINK_DEST], LINK_DEST), (False, True, True, [LINK_DEST, AUTO], REFLINK)),
    ],
)
def test_auto_is_settled_by_the_file_system(
    is_btrfs: bool, can_clone: bool, has_large_files: bool, allowed: list[str], expected: str
) -> None:
    assert (
        snapshot_mode.settled(
            has_large_files=has_large_files, allowed=allowed, is_btrfs=lambda: is_btrfs, can_clone=lambda: can_clone
        )
        == expected
    )


def test_the_coordinator_s_weakest_mode_keeps_no_more_than_any_storage_does() -> None:
    modes = product(("", *NAMES), NAMES)
    for (requested, default), (is_large, is_btrfs, can_clone) in product(modes, product((True, False), repeat=3)):
        result = snapshot_mode.selected(requested, default, has_large_files=is_large)
        if result == AUTO:
            result = snapshot_mode.settled(
                has_large_files=is_large,
                allowed=(),
                is_btrfs=partial(bool, is_btrfs),
                can_clone=partial(bool, can_clone),
            )
        weakest = snapshot_mode.weakest(requested, has_large_files=is_large)
        assert weakest in (result, NONE, AUTO, "")
        assert result != NONE or weakest == NONE or (not requested and default == NONE)


@pytest.mark.parametrize("value", ["zfs", "", None, 3, ["auto"]])
def test_only_the_names_are_valid(value: object) -> None:
    with pytest.raises(InvalidValue, match="must be one of: link-dest"):
        OPTIONS["snapshot_mode"].check(value)
