"""The options that say what a run reads and keeps."""

import pytest

from turku.policy import run_options


@pytest.mark.parametrize(
    ("path", "choice", "is_on"),
    [
        *(("/", None, True), ("//", None, True), ("/.", None, True), ("/etc/..", None, True)),
        *(("/etc", None, False), ("/etc/", None, False), ("/", False, False), ("/etc", True, True)),
    ],
)
def test_it_is_on_for_the_whole_system_where_nothing_else_is_said(path: str, choice: object, is_on: bool) -> None:
    assert run_options.stays_on_one_file_system(path, choice) is is_on
