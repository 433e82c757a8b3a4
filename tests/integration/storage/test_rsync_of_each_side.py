"""Each side runs the rsync that was chosen for it (--storage-rsync, --machine-rsync), in the sandbox and out of it."""

import os
from pathlib import Path

import pytest
from tests.support import rsync_programs
from tests.support.backed_up_machine import backed_up_machine
from tests.support.ordered_storage import order, ordered_storage

pytestmark = pytest.mark.both_rsyncs

SIZE_BYTES = 1024 * 1024
SLOWLY = {"bwlimit": "1000"}
"""So that a look into /proc finds both at work."""


@pytest.mark.parametrize("sandbox", ["auto", "off"])
def test_a_backup(tmp_path: Path, sandbox: str) -> None:
    with backed_up_machine(tmp_path, sandbox=sandbox) as machine:
        (machine.source_dir / "large").write_bytes(os.urandom(SIZE_BYTES))
        with rsync_programs.watched() as running:
            outcome = machine.back_up(**SLOWLY)
        assert outcome.success, outcome.summary
        running.assert_as_chosen()


def test_a_script_that_stands_in_for_rsync(tmp_path: Path) -> None:
    with backed_up_machine(tmp_path) as machine:
        (machine.source_dir / "large").write_bytes(os.urandom(SIZE_BYTES))
        with rsync_programs.watched() as running:
            assert machine.with_rsync("sh", "-c", 'exec "$0" "$@"', "rsync").back_up(**SLOWLY).success
        running.assert_as_chosen()


def test_a_session(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(SIZE_BYTES))
    with ordered_storage(tmp_path / "ordered", {"etc": source}) as storage:
        storage.admit()
        with rsync_programs.watched() as running:
            storage.session({"etc": order(**SLOWLY)})
        assert storage.reports["etc"]["success"], storage.reports
        running.assert_as_chosen()
