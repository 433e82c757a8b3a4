"""N3: generated requests over all calls are answered with 200 or a 4xx and a sentence, never with a server error.

`bench/fuzz_calls.py` sends 50,000 of them and follows the server's memory. Here is a part.
"""

import json

import pytest
import requests
from bench import fuzz_calls
from tests.support.api_messages import changed, places, put
from tests.support.coordinator import Coordinator
from tests.support.generated_requests import Fuzz

REQUESTS = 1_000


@pytest.fixture(scope="module")
def fuzz(coordinator: Coordinator) -> Fuzz:
    return fuzz_calls.prepared(coordinator, seed=3)


def test_n3_nul_is_refused_by_field_wherever_it_stands(fuzz: Fuzz) -> None:
    """SQLite would keep it. PostgreSQL fails at it."""
    for call, message in fuzz.lawful.items():
        for path in places(message):
            body = changed(message, path, put("a\0b"))
            response = requests.post(f"{fuzz.url}/{call}", json=body, timeout=30)
            assert response.status_code == 400, (call, path)
            field = next(part for part in reversed(path) if isinstance(part, str))
            assert field in response.json()["error"] or "[...]" in response.json()["error"]


def test_n3_bad_utf8_is_refused_even_where_nobody_reads_it(fuzz: Fuzz) -> None:
    for call, message in fuzz.lawful.items():
        body = json.dumps({**message, "unknown": "?"}).encode().replace(b"?", b"\xff\xfe")
        response = requests.post(f"{fuzz.url}/{call}", data=body, timeout=30)
        assert response.status_code == 400, call
        assert "UTF-8" in response.json()["error"]


@pytest.mark.parametrize("value", [2**64, -(2**70), 10**400, [[2**80]], {"x": 2**80}, "a\ud800"], ids=range(6))
def test_n3_options_that_are_kept_verbatim_are_ones_that_can_be_kept(fuzz: Fuzz, value: object) -> None:
    message = fuzz.lawful["update_config"]
    body = changed(message, ("machine", "sources", "etc", "other"), put(value))
    assert requests.post(f"{fuzz.url}/update_config", json=body, timeout=30).status_code == 400


def test_n3_generated_requests_never_fail_the_server(fuzz: Fuzz) -> None:
    fuzz.run(range(REQUESTS), connections=2)
    assert fuzz.failures == []
    assert sum(fuzz.statuses.values()) == REQUESTS
    # Some went all the way, so that there was something to break.
    assert fuzz.statuses[200] > REQUESTS // 50
