"""The option ``one_file_system`` and its default, which depends on the path."""

from __future__ import annotations

import pytest

from turku.policy import one_file_system


@pytest.mark.parametrize(
    ("path", "choice", "is_on"),
    [
        *(("/", None, True), ("//", None, True), ("/.", None, True), ("/etc/..", None, True)),
        *(("/etc", None, False), ("/etc/", None, False), ("/", False, False), ("/etc", True, True)),
    ],
)
def test_it_is_on_for_the_whole_system_where_nothing_else_is_said(path: str, choice: object, is_on: bool) -> None:
    assert one_file_system.is_on(path, choice) is is_on
