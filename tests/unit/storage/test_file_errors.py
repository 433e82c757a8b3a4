"""File errors: entries are listed within bounds, all are counted, and failures of the storage are distinguished."""

from turku.policy.anomaly import AnomalyThresholds
from turku.storage.backup import incomplete
from turku.storage.disk.incompleteness import (
    COMPLETE,
    ENTRIES_LIMIT,
    ENTRIES_LIMIT_BYTES,
    Incompleteness,
    LostEntry,
    bounded,
)
from turku.storage.rsync.file_errors import PATHS_LIMIT, PROTECTED_LIMIT, WARNINGS_LIMIT, FileErrors


def unreadable(name: bytes) -> bytes:
    return b'rsync: [sender] send_files failed to open "/%b" (in etc): Permission denied (13)' % name


def closed(name: bytes) -> bytes:
    return b'rsync: [sender] opendir "/%b" (in etc) failed: Permission denied (13)' % name


FULL = b'rsync: [receiver] mkstemp "/tree/.file.Ab3dE9" failed: No space left on device (28)'
NO_ACL = b"rsync: [receiver] set_acl: sys_acl_set_file(file, ACL_TYPE_ACCESS): Operation not supported (95)"


def taken(*lines: bytes) -> FileErrors:
    made = FileErrors()
    for line in lines:
        made.parse_line(line, directory=b"/tree")
    return made


def test_an_entry_that_rsync_names_counts_once() -> None:
    made = taken(unreadable(b"a"), unreadable(b"a"), closed(b"d"), b"something else")
    assert list(made.entries) == [b"a", b"d"]
    assert made.hidden_paths == (b"d",)
    assert made.names_every_error
    assert made.can_be_protected


def test_errors_are_not_conclusive_without_messages_or_when_the_storage_cannot_write() -> None:
    assert not taken().names_every_error
    assert not taken(b"rsync error: some files/attrs were not transferred (code 23)").names_every_error
    assert not taken(unreadable(b"a"), FULL).names_every_error


def test_properties_that_could_not_be_set_are_sentences() -> None:
    made = taken(NO_ACL)
    assert made.names_every_error
    assert made.entries == {}
    assert (made.warning_count, len(made.warnings)) == (1, 1)


def test_a_machine_that_says_much_takes_a_bounded_amount_of_memory() -> None:
    made = taken(*(unreadable(b"%d" % number) for number in range(PATHS_LIMIT + 100)))
    assert len(made.entries) == PATHS_LIMIT
    assert made.unnamed_count == 100
    assert not made.can_be_protected
    many = taken(*(NO_ACL.replace(b"(file,", b"(file%d," % number) for number in range(WARNINGS_LIMIT + 10)))
    assert len(many.warnings) == WARNINGS_LIMIT
    assert many.warning_count == WARNINGS_LIMIT + 10


def test_more_paths_than_rules_can_protect_are_not_protected() -> None:
    assert taken(*(closed(b"%d" % number) for number in range(PROTECTED_LIMIT))).can_be_protected
    assert not taken(*(closed(b"%d" % number) for number in range(PROTECTED_LIMIT + 1))).can_be_protected


def test_a_path_that_leads_out_of_the_tree_is_none() -> None:
    made = taken(unreadable(b"../../other"))
    assert made.entries == {}
    assert made.unnamed_count == 1


def test_the_errors_of_two_runs_of_one_backup_add_up() -> None:
    made = taken(closed(b"d"), NO_ACL)
    made.add(taken(closed(b"d"), unreadable(b"a"), NO_ACL))
    assert sorted(made.entries) == [b"a", b"d"]
    assert made.warning_count == 1


def test_the_notes_of_a_snapshot_are_bounded() -> None:
    assert len(bounded([LostEntry(str(number), "no") for number in range(ENTRIES_LIMIT + 1)])) == ENTRIES_LIMIT
    long = [LostEntry("x" * 4000, "no") for _ in range(100)]
    assert sum(len(each.path) for each in bounded(long)) <= ENTRIES_LIMIT_BYTES


def test_only_a_file_that_could_be_read_before_is_a_finding() -> None:
    thresholds = AnomalyThresholds()
    new = Incompleteness(missing_files=500)
    assert incomplete.findings(new, COMPLETE, 1000, thresholds) == ()
    stale = Incompleteness(stale_files=101)
    assert incomplete.findings(stale, COMPLETE, 1000, thresholds) == ("101 of 1000 files cannot be read any more",)
    assert incomplete.findings(stale, stale, 1000, thresholds) == ()
    assert incomplete.findings(stale, COMPLETE, 1000, AnomalyThresholds(enabled=False)) == ()
    assert incomplete.findings(stale, COMPLETE, 0, thresholds) == ()
    directory = Incompleteness(stale_files=3, entries=(LostEntry("d", "no", 3, "2026-01-01"),))
    assert incomplete.findings(directory, COMPLETE, 1000, thresholds) == (
        "nothing in d can be read any more, it had 3 files",
    )
    assert incomplete.findings(directory, directory, 1000, thresholds) == ()


def test_a_summary_names_the_first_and_counts_the_rest() -> None:
    entries = tuple(LostEntry(str(number), "no") for number in range(ENTRIES_LIMIT))
    printed = incomplete.warnings(Incompleteness(missing_files=5000, entries=entries))
    assert printed[0] == "INCOMPLETE: 5000 files could not be read"
    assert len(printed) < 30
    assert printed[-1] == "and 4980 more files"
