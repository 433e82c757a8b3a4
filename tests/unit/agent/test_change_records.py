"""The moment of the last good session: used as long as the clock went on from it, and never where it is not certain."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.agent.conftest import Write

from turku.agent.capture import change_report
from turku.agent.capture.change_report import Moment, SourceRecord
from turku.agent.config import loading as configuration

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
EARLIER = Moment(unix_ns=100 * HOUR, boot_id="this boot", boot_ns=HOUR)
RECORD = SourceRecord("/etc", EARLIER, b"12345678")


def later(*, unix: int = HOUR, boot: int = HOUR, boot_id: str = "this boot") -> Moment:
    return Moment(EARLIER.unix_ns + unix, boot_id, EARLIER.boot_ns + boot)


@pytest.mark.parametrize("moment", [later(), later(unix=HOUR + SECOND // 2), later(unix=HOUR - SECOND // 2)])
def test_a_later_moment_follows_where_the_clock_went_on(moment: Moment) -> None:
    assert moment.follows(EARLIER)


@pytest.mark.parametrize(
    "moment",
    [
        EARLIER,
        later(unix=-HOUR),
        # It is later all the same.
        later(unix=HOUR // 2),
        later(unix=HOUR - 2 * SECOND),
        # A machine that was put back to an earlier state, and whose clock was set then.
        later(unix=50 * HOUR),
        later(boot=-HOUR // 2),
        later(boot_id="another boot"),
        later(boot_id=""),
    ],
    ids=["the same", "before", "set back", "set back a little", "set on", "boot clock", "boot", "no boot"],
)
def test_no_moment_follows_where_the_clock_was_set_or_started_anew(moment: Moment) -> None:
    assert not moment.follows(EARLIER)


def test_without_the_id_of_a_boot_no_moment_follows() -> None:
    assert not Moment(2 * HOUR, "", 2 * HOUR).follows(Moment(HOUR, "", HOUR))


def test_a_moment_is_that_of_the_clock_and_the_boot(tmp_path: Path) -> None:
    class Fixed:
        def now(self) -> datetime:
            return datetime(2026, 11, 29, 12, 0, 0, 123456, UTC)

        def monotonic_seconds(self) -> float:
            return 0

        def sleep(self, seconds: float) -> None:
            raise AssertionError

    (tmp_path / "boot_id").write_text("a-b-c\n")
    moment = change_report.moment_of(Fixed(), boot_id=tmp_path / "boot_id")
    assert (moment.unix_ns, moment.boot_id) == (1_795_953_600_123_456_000, "a-b-c")
    assert change_report.moment_of(boot_id=tmp_path / "nothing").boot_id == ""


def test_records_are_kept_per_storage_in_a_private_file(write: Write) -> None:
    agent = configuration.load(write())
    change_report.write_records(agent.state, "primary", {"etc": RECORD})
    change_report.write_records(agent.state, "other: storage", {})
    assert change_report.read_records(agent.state, "primary") == {"etc": RECORD}
    assert change_report.read_records(agent.state, "other: storage") == {}
    assert change_report.read_records(agent.state, "third") == {}
    for path in (agent.state.var_dir / "changed_entries").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"etc": 7}', b'{"etc": {"path": "/etc"}}'])
def test_a_damaged_file_is_no_record(write: Write, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    agent = configuration.load(write())
    change_report.write_records(agent.state, "primary", {"etc": RECORD})
    path = agent.state.var_dir / "changed_entries/primary.json"
    path.write_bytes(content)
    assert change_report.read_records(agent.state, "primary") == {}
    assert f"cannot read {path}, which is replaced" in caplog.text


def test_a_link_in_its_place_is_not_followed(write: Write, tmp_path: Path) -> None:
    agent = configuration.load(write())
    change_report.write_records(agent.state, "primary", {"etc": RECORD})
    path = agent.state.var_dir / "changed_entries/primary.json"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert change_report.read_records(agent.state, "primary") == {}


def test_records_that_cannot_be_written_are_a_warning(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    agent = configuration.load(write())
    agent.state.var_dir.parent.mkdir(exist_ok=True)
    agent.state.var_dir.write_text("a file")
    change_report.write_records(agent.state, "primary", {"etc": RECORD})
    assert "cannot record the session" in caplog.text
