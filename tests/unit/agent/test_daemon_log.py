"""The messages of rsyncd about thousands of files take few lines of the agent's log, which gives their number."""

import pytest

from turku.agent.rsyncd.daemon import DaemonLog

STAMP = "2026/11/29 06:40:59 [4711] "


def test_trouble_with_thousands_of_files_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    listener = DaemonLog()
    for number in range(5800):
        listener.line(f'{STAMP}rsync: [sender] opendir "/{number}" (in proc) failed: Permission denied (13)')
    listener.line(f"{STAMP}sent 3 bytes")
    listener.end()
    assert len(caplog.messages) == 22
    assert caplog.messages[0] == ('rsyncd: rsync: [sender] opendir "/0" (in proc) failed: Permission denied (13)')
    assert caplog.messages[-1] == (
        "rsyncd: 5780 more messages are not shown: 5780 x "
        'rsync: [sender] opendir "..." (in proc) failed: Permission denied (13)'
    )


def test_messages_about_its_end_are_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    listener = DaemonLog()
    listener.end()
    listener.line(f"{STAMP}rsync error: received SIGUSR1 (code 19)")
    assert caplog.messages == []
