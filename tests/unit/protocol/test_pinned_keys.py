"""Pinned keys of the coordinator: what is accepted, and which announcements change it."""

from pathlib import Path

import pytest

from turku.protocol import pinned_keys
from turku.protocol.api_config import ApiConfig

OLD, NEXT, FORGED = (f"SHA256:{letter * 43}" for letter in "ANF")


def learn(var_dir: Path, *announced: str, configured: tuple[str, ...] = (OLD,), seen_key: str = OLD) -> bool:
    known = pinned_keys.accepted(configured, var_dir)
    path = var_dir / pinned_keys.FILE

    def write(text: str) -> None:
        path.write_text(text)

    return pinned_keys.learn(configured, known, announced, seen_key=seen_key, write=write)


def test_the_next_key_is_accepted_before_it_comes_and_the_old_one_forgotten_after(tmp_path: Path) -> None:
    assert pinned_keys.accepted((OLD,), tmp_path) == (OLD,)
    assert learn(tmp_path, OLD, NEXT)
    assert set(pinned_keys.accepted((OLD,), tmp_path)) == {OLD, NEXT}
    assert not learn(tmp_path, NEXT, OLD)
    assert learn(tmp_path, NEXT, seen_key=NEXT)
    assert pinned_keys.accepted((OLD,), tmp_path) == (NEXT,)


def test_an_announcement_without_the_key_of_its_connection_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not learn(tmp_path, FORGED)
    assert not learn(tmp_path, FORGED, seen_key="")
    assert pinned_keys.accepted((OLD,), tmp_path) == (OLD,)
    assert "they are ignored" in caplog.text


def test_a_program_that_pins_no_key_ignores_announcements(tmp_path: Path) -> None:
    assert not learn(tmp_path, OLD, configured=())
    (tmp_path / pinned_keys.FILE).write_text(f'{{"configured": [], "accepted": ["{FORGED}"]}}')
    assert pinned_keys.accepted((), tmp_path) == ()
    assert ApiConfig(api_url="https://turku.example.com/v1").accepted_keys(tmp_path) == ()


def test_a_new_configuration_replaces_what_was_announced(tmp_path: Path) -> None:
    learn(tmp_path, OLD, NEXT)
    assert pinned_keys.accepted((FORGED,), tmp_path) == (FORGED,)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"configured": ["x"], "accepted": []}', '{"accepted": ["x"]}', "\udcff"]
)
def test_a_damaged_file_leaves_the_configured_keys(tmp_path: Path, content: str) -> None:
    (tmp_path / pinned_keys.FILE).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert pinned_keys.accepted((OLD,), tmp_path) == (OLD,)
