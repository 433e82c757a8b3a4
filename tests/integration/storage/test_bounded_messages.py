"""A source of which rsync says something for thousands of files takes few lines of the storage's log."""

from pathlib import Path

import pytest
from tests.support.backed_up_machine import backed_up_machine

TALKING = (
    "sh",
    "-c",
    """i=0
while [ $i -lt 5800 ]; do
  echo "rsync: [sender] opendir \\"/$i\\" (in etc) failed: Permission denied (13)" >&2; i=$((i+1))
done
exec "$0" "$@" """,
    "rsync",
)


def test_messages_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with backed_up_machine(tmp_path) as machine:
        (machine.source_dir / "file").touch()
        assert machine.with_rsync(*TALKING).back_up().success
    # Beside these the run lists some of the files that its snapshot lacks.
    assert len(caplog.messages) < 60
    assert "etc: and 5780 more files" in caplog.messages
    said = [message for message in caplog.messages if "opendir" in message or "not shown: " in message]
    assert len(said) == 21
    assert said[0] == 'etc: rsync: [sender] opendir "/0" (in etc) failed: Permission denied (13)'
    assert said[-1] == "etc: 5780 more messages are not shown: 5780 x unreadable directory (Permission denied)"
