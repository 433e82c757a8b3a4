"""A storage has rsync stay on one file system where the source does and its agent does not see to it by itself."""

from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET, UnsetType
from tests.support.backed_up_machine import order, storage_configuration
from tests.support.recording_coordinator import RecordingCoordinator

from turku.protocol import codec
from turku.protocol.messages import SessionRequest, SourceCredentials
from turku.storage.backup.job import BackupJob, BackupReport, transfer_options
from turku.storage.session import checkin

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


@pytest.mark.parametrize(("ordered", "is_asked_of_rsync"), [(UNSET, True), (True, False), (False, False)])
def test_rsync_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ordered: bool | UnsetType, is_asked_of_rsync: bool
) -> None:
    storage = storage_configuration(tmp_path / "storage", sandbox="off")
    asked: list[bool] = []

    def back_up(job: BackupJob, *_arguments: object, **_keywords: object) -> BackupReport:
        asked.append(transfer_options(job.order, storage.receiving).one_file_system)
        return BackupReport(success=True, snapshot=None, summary="", time_begin=1, time_end=2)

    monkeypatch.setattr(checkin, "back_up", back_up)
    (tmp_path / "storage" / "volume").mkdir()
    credentials = SourceCredentials("user", "password", one_file_system=ordered)
    request = SessionRequest(action="checkin", port=1024, sources={"etc": credentials})
    assert codec.decode(msgspec.json.encode(request), SessionRequest) == request
    RecordingCoordinator(etc=order(one_file_system=True)).checkin(storage, UUID, request)
    assert asked == [is_asked_of_rsync]


def test_an_agent_that_says_nothing_leaves_the_field_out() -> None:
    assert msgspec.to_builtins(SourceCredentials("user", "password")).keys() == {"username", "password"}
