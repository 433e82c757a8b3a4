"""N3: text of many bytes a character is cut between characters wherever the server cuts it: nobody gets a 500 by it."""

from typing import Any

import pytest
import requests
from bench import fuzz_calls
from tests.support.api_messages import changed, places, put
from tests.support.coordinator import Coordinator
from tests.support.generated_requests import Fuzz

WIDE = ("\u00e9", "\u20ac", "\U0001f4be")
"""Characters of two, three and four bytes."""
SHIFTS = range(4)


@pytest.fixture(scope="module")
def fuzz(coordinator: Coordinator) -> Fuzz:
    return fuzz_calls.prepared(coordinator, seed=4)


def status(url: str, body: Any) -> int:
    answer = requests.post(url, json=body, timeout=30)
    assert answer.status_code == 200 or answer.json()["error"]
    return answer.status_code


@pytest.mark.parametrize("character", WIDE)
@pytest.mark.parametrize("length", [150, 400])
def test_n3_an_unknown_word_of_any_length_is_refused_by_a_sentence(
    coordinator: Coordinator, character: str, length: int
) -> None:
    root = coordinator.url.removesuffix("/v1")
    for shift in SHIFTS:
        word = "x" * shift + character * length
        request_access = {
            "storage": {"name": "a", "secret": "b"},
            "machine": {"uuid": "c"},
            "source": "d",
            "action": word,
        }
        progress = {"machine": {"uuid": "c", "secret": "d"}, "request": "e", "claim": "f" * 16, "step": word}
        assert status(f"{root}/v2/storage_access_request", request_access) == 400
        assert status(f"{root}/v2/agent_restore_progress", progress) == 400


@pytest.mark.parametrize("character", WIDE)
def test_n3_every_field_takes_or_refuses_long_text(fuzz: Fuzz, character: str) -> None:
    for call, message in fuzz.lawful.items():
        for path in places(message):
            for shift in SHIFTS:
                body = changed(message, path, put("x" * shift + character * 400))
                assert status(f"{fuzz.url}/{call}", body) < 500, (call, path, shift)


def test_n3_an_unknown_call_may_have_any_name(coordinator: Coordinator) -> None:
    for shift in SHIFTS:
        assert status(f"{coordinator.url}/{'x' * shift}{WIDE[1] * 400}", {}) == 404
