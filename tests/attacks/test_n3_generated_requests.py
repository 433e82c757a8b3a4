"""N3: generated requests over all calls are answered with 200 or a 4xx and a sentence; never with a server error.

`bench/fuzz_calls.py` sends 50,000 of them and follows the server's memory; here is a part.
"""

from __future__ import annotations

from bench import fuzz_calls
from tests.support.coordinator import Coordinator

REQUESTS = 1_000


def test_n3_generated_requests_never_fail_the_server(coordinator: Coordinator) -> None:
    fuzz = fuzz_calls.prepared(coordinator, seed=3)
    fuzz.run(range(REQUESTS), connections=2)
    assert fuzz.failures == []
    assert sum(fuzz.statuses.values()) == REQUESTS
    # Some went all the way, so that there was something to break.
    assert fuzz.statuses[200] > REQUESTS // 50
