"""S3 and S4: a storage that answers a restore with malformed words, and pushes a malformed stream with any options.

A few sessions of bench/fuzz_restore.py, of which `make fuzz` plays hundreds.
"""

from pathlib import Path

from tests.support.fuzzed_restores import FuzzedRestores

SESSIONS = 10


def test_s3_s4_malformed_restores_write_nothing_elsewhere_and_end(tmp_path: Path) -> None:
    with FuzzedRestores(tmp_path, seed=20261124) as restores:
        for number in range(SESSIONS):
            ended = restores.run(number)
            assert ended.faults == [], (number, ended.kind, ended.output)
