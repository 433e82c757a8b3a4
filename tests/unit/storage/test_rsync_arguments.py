"""The rsync command line, and the summary of a result."""

from pathlib import Path

import pytest

from turku.core.secret import Secret
from turku.errors import InvalidValue
from turku.storage.rsync import result
from turku.storage.rsync.arguments import arguments
from turku.storage.rsync.file_system_support import FileSystemSupport
from turku.storage.rsync.request import WHOLE_SOURCE, RsyncDaemon, TransferOptions, TransferScope, Workspace
from turku.storage.rsync.result import SUMMARY_LIMIT, TransferResult

BASE = Path("/volume/machine/etc.snapshots/base")
WORKSPACE = Workspace(Path("/volume/machine/etc.snapshots/.staging"), (BASE,))
DAEMON = RsyncDaemon(port=50000, module="etc", username="9bef0a75-x", password=Secret("one-time password"))
EVERYTHING = TransferOptions()
PLAIN = FileSystemSupport()


def command_line(
    daemon: RsyncDaemon = DAEMON,
    selection: TransferOptions = EVERYTHING,
    system: FileSystemSupport = PLAIN,
    extent: TransferScope = WHOLE_SOURCE,
) -> list[str]:
    return arguments(["sudo", "rsync"], daemon, selection, WORKSPACE, system, scope=extent)


def test_the_machine_s_module_is_pulled_into_the_workspace() -> None:
    line = command_line()
    assert line[:2] == ["sudo", "rsync"]
    assert line[-3:] == ["--", "rsync://9bef0a75-x@127.0.0.1:50000/etc/", "./"]
    assert line[-4] == f"--copy-dest={BASE}"
    assert {"--archive", "--numeric-ids", "--delete", "--delete-excluded"} <= set(line)


def test_rsync_gets_paths_in_its_sandbox_and_makes_no_hard_link_into_a_snapshot() -> None:
    listed = BASE.with_name(".fetch-list")
    names = {BASE: "/beside0", listed: "/beside1"}
    line = arguments(
        ["rsync"],
        DAEMON,
        EVERYTHING,
        WORKSPACE,
        PLAIN,
        scope=TransferScope(files_from=listed),
        path_in_sandbox=names.__getitem__,
    )
    assert {"--copy-dest=/beside0", "--files-from=/beside1", "--from0"} <= set(line)
    assert not any("link-dest" in word or "/volume" in word for word in line)


def test_the_password_is_not_on_the_command_line() -> None:
    assert "one-time password" not in " ".join(command_line())
    assert "one-time password" not in repr(DAEMON)


def test_rules_come_in_their_order_each_as_one_argument() -> None:
    line = command_line(selection=TransferOptions(rules=("+ /a b", "- *.tmp")))
    assert line.index("--filter=+ /a b") < line.index("--filter=- *.tmp")


def test_options_appear_only_when_asked_for() -> None:
    plain = set(command_line())
    full = set(
        command_line(
            selection=TransferOptions(one_file_system=True, bandwidth_kib_per_second=512, compare_contents=True),
            system=FileSystemSupport(fake_super=True, nanoseconds=True),
        )
    )
    assert full - plain == {*("--checksum", "--bwlimit=512", "--fake-super", "--modify-window=-1"), "--one-file-system"}
    none = set(command_line(selection=TransferOptions(hard_links=False, holes=False)))
    assert plain - none == {"--hard-links", "--sparse"}


@pytest.mark.parametrize("listed", [None, Path("/listed")])
def test_a_dry_run_is_one_whatever_it_is_about(listed: Path | None) -> None:
    assert "--dry-run" in command_line(extent=TransferScope(is_dry_run=True, files_from=listed))
    assert "--dry-run" not in command_line(extent=TransferScope(files_from=listed))


def test_attributes_are_asked_for_where_they_can_be_kept() -> None:
    system = FileSystemSupport(acls=True, attributes=True, privileged_attributes=("trusted.*",))
    every = command_line(system=system)
    assert {"--acls", "--xattrs"} <= set(every)
    for selection, option in ((TransferOptions(acls=False), "--acls"), (TransferOptions(attributes=False), "--xattrs")):
        assert option not in command_line(selection=selection, system=system)
    plan = command_line(system=system, extent=TransferScope(is_dry_run=True, compares_attributes=False))
    assert not {"--acls", "--xattrs"} & set(plan)
    assert not {"--acls", "--xattrs"} & set(command_line(system=FileSystemSupport()))


@pytest.mark.parametrize("username", ["x@evil.example", "a/b", "a:b", "", "-v", "é", "a\n", "x" * 129])
def test_a_user_name_that_would_lead_elsewhere_is_refused(username: str) -> None:
    with pytest.raises(InvalidValue):
        command_line(RsyncDaemon(50000, "etc", username, Secret("p")))


def test_the_summary_of_a_success_is_its_statistics() -> None:
    transferred = TransferResult(result.exit_status(0), ("Number of files: 3",), ("noise",))
    assert transferred.summary == "Number of files: 3"


def test_the_summary_of_a_failure_says_what_it_means_and_ends_somewhere() -> None:
    transferred = TransferResult(result.exit_status(30), (), ("x" * 5000,) * 100)
    assert transferred.summary.startswith("nothing came through the tunnel for too long")
    assert len(transferred.summary) <= SUMMARY_LIMIT
    assert max(map(len, transferred.summary.splitlines())) <= 1000


def test_compression_is_asked_for_where_it_is_wanted() -> None:
    assert "--compress" not in command_line()
    assert "--compress" in command_line(selection=TransferOptions(compress=True))
