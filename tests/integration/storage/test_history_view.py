"""The history that an access grant lets be seen, asked for in every way that the protocol has: through the view,
without a session."""

import ast
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.collected_answers import CollectedAnswers
from tests.support.landed_restore import TEMPORARY_NAME

from turku.errors import (
    ApiForbidden,
    ApiNotFound,
    ApiRefused,
    ApiRejected,
    ApiThrottled,
    CatalogUnusable,
    NotInHistory,
    TurkuError,
)
from turku.policy import names
from turku.protocol.restore_messages import (
    BrowseEnd,
    BrowseRequest,
    FileRestoreRequest,
    FileRow,
    Manifest,
    RestorePlan,
    SnapshotChoice,
    SnapshotRow,
    StorageAccessAnswer,
)
from turku.storage import catalog
from turku.storage.restore import access_grants, browse, history_view
from turku.storage.restore import plan as restore_plan
from turku.storage.restore.access_grants import AccessGrant, AccessRequest
from turku.storage.restore.history_view import HistoryView
from turku.storage.restore.snapshot_lookup import CURRENT

OLDER, NEWER = "OLD-PASSWORDS", "SALARIES"
LATEST = SnapshotChoice()
OWN, OTHER = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d", "11111111-1111-4111-8111-111111111111"
KINDS = ("snapshots", "ls", "versions", "find", "diff")


class Asker:
    """Somebody who asks through a view."""

    def __init__(self, machine: BackedUpMachine, granted: AccessGrant) -> None:
        self.machine = machine
        self.view = HistoryView(machine.storage, granted, clock=machine.clock)

    def browse(self, **words: Any) -> list[Any]:
        collected = CollectedAnswers()
        browse.show(self.view, BrowseRequest(sources=["etc"], **words), collected.answers)
        return collected.read()

    def list_only(self, **words: Any) -> list[Any]:
        collected = CollectedAnswers()
        answers = collected.answers
        request = FileRestoreRequest("etc", TEMPORARY_NAME, list_only=True, **words)
        with restore_plan.prepared(self.machine.storage, self.view, request) as (prepared, answer):
            answers.send(answer)
            restore_plan.list_only(self.machine.storage, prepared, answers)
        return collected.read()

    def said(self, ask: Any, **words: Any) -> str:
        """All that is told for an answer, a refusal included, but for the words of the question."""
        try:
            text = repr(ask(**words))
        except TurkuError as error:
            text = f"REFUSED {error.message} {error.details} {error.hint}"
        for asked in (*words.get("paths", []), words.get("path", "")):
            for rest in (" is not in", " was in no snapshot"):
                text = text.replace(f"{asked}{rest}", rest)
        return text


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume", timezone="UTC") as machine:
        source = machine.source_dir
        (source / "ssh").mkdir()
        (source / "ssh/key").write_text("key\n")
        (source / "ssh/sshd_config").write_text("Port 22\n")
        (source / "shadow").write_text("secret\n")
        os.link(source / "ssh/key", source / "linked-beside")
        (source / OLDER).write_text("in the one before")
        os.utime(source / "ssh", (1_700_000_000, 1_700_000_000))
        machine.days(1)
        (source / OLDER).unlink()
        (source / "ssh/sshd_config").write_text("Port 222\n")
        machine.days(1)
        (source / NEWER).write_text("in the one after")
        (source / "ssh/sshd_config").write_text("Port 22222\n" + "x" * 70_000)
        machine.days(1)
        yield machine


def granted(name: str | None, *paths: bytes, choice: SnapshotChoice | None = None) -> AccessGrant:
    wanted = AccessRequest(OTHER, "browse", "etc", OWN, "7c2a5d0e-9a53-4f7a-8f5d-3f1f2b6f8f01")
    chosen = choice or (None if name is None else SnapshotChoice(name))
    return AccessGrant(OWN, "etc", wanted, frozenset(paths), chosen, name)


def every_question(asker: Asker, machine: BackedUpMachine) -> Iterator[str]:
    before, approved, after = machine.snapshots()
    choices = [SnapshotChoice(name) for name in (before, after, "latest", "etc_", "never", CURRENT, after[4:12])]
    choices += [LATEST, *(SnapshotChoice(at=text) for text in ("tomorrow", "2000-01-01", "2026-02-03", "rubbish"))]
    ours = SnapshotChoice(approved)
    paths = (
        "",
        "ssh",
        "ssh/key",
        "ssh/sshd_config",
        "ssh/gone",
        "ssh/sshd_confi",
        "shadow",
        OLDER,
        NEWER,
        "linked-beside",
        "ss",
        "SALARIE",
        "shado",
    )
    for choice in (*choices, ours):
        for path in paths:
            for is_recursive in (False, True):
                yield asker.said(asker.browse, listing="ls", snapshot=choice, path=path, is_recursive=is_recursive)
            yield asker.said(asker.list_only, snapshot=choice, paths=[path])
        yield asker.said(asker.list_only, snapshot=choice)
        yield asker.said(asker.list_only, snapshot=choice, paths=list(paths[1:]))
        for pattern in ("*", "*/*", "SAL", "OLD", "config", "shadow"):
            yield asker.said(asker.browse, listing="find", snapshot=choice, pattern=pattern, ignores_case=True)
        for other in (*choices, ours):
            yield asker.said(asker.browse, listing="diff", snapshot=choice, other=other)
    for path in paths:
        yield asker.said(asker.browse, listing="versions", path=path)
    for limit in (1, 2, 3):
        yield asker.said(asker.browse, listing="snapshots", limit=limit)
        yield asker.said(asker.browse, listing="find", pattern="*", limit=limit)


def test_one_snapshot_is_all_there_is(machine: BackedUpMachine) -> None:
    before, approved, after = machine.snapshots()
    asker = Asker(machine, granted(approved))
    secrets = [before, after, before[4:], after[4:], OLDER, NEWER, "size_bytes=8,", "70011", "2026-02-01", "2026-02-03"]
    for text in every_question(asker, machine):
        for secret in secrets:
            assert secret not in text, text

    rows = asker.browse(listing="snapshots")
    assert [row.name for row in rows if isinstance(row, SnapshotRow)] == [approved]
    [version, end] = asker.browse(listing="versions", path="ssh/sshd_config")
    assert (version.size_bytes, version.first, version.last, end) == (9, approved, approved, BrowseEnd())
    # A version that all three have is of this one alone.
    [version, _end] = asker.browse(listing="versions", path="shadow")
    assert (version.first, version.last) == (approved, approved)
    ours = SnapshotChoice(approved)
    assert asker.browse(listing="diff", snapshot=ours, other=ours) == [BrowseEnd(snapshot=approved, other=approved)]


def test_paths_are_all_there_is(machine: BackedUpMachine) -> None:
    _before, approved, _after = machine.snapshots()
    asker = Asker(machine, granted(approved, b"ssh/key", b"ssh/gone", b"ssh/sshd_confi", b"diary"))
    directory = (machine.place.tree(approved) / "ssh").stat().st_mtime_ns
    for text in every_question(asker, machine):
        for secret in ("shadow", "sshd_config", "linked-beside", OLDER, NEWER, str(directory), "files=5"):
            assert secret not in text, text
    ours = SnapshotChoice(approved)
    found = asker.browse(listing="find", pattern="*")
    assert [row.path for row in found if isinstance(row, FileRow)] == ["diary", "ssh/key"]
    found = asker.browse(listing="ls", snapshot=ours, is_recursive=True)
    assert [row.path for row in found if isinstance(row, FileRow)] == ["diary", "ssh/key"]
    plan, manifest, _end = asker.list_only(snapshot=ours, paths=["ssh/key"])
    assert isinstance(plan, RestorePlan)
    assert isinstance(manifest, Manifest)
    assert (plan.files, plan.size_bytes, [entry.path for entry in manifest.entries]) == (1, 4, ["ssh/key"])
    [above] = plan.parents
    assert (above.path, above.mode) == ("ssh", 0o755)
    [row, _end] = asker.browse(listing="snapshots")
    assert (row.files, row.size_bytes) == (None, None)


def test_paths_that_were_not_approved_and_missing_ones_are_answered_alike(machine: BackedUpMachine) -> None:
    _before, approved, after = machine.snapshots()
    asker = Asker(machine, granted(approved, b"ssh/key"))
    ours = SnapshotChoice(approved)
    for there, missing in (("shadow", "shadox"), ("ssh/sshd_config", "ssh/sshd_confix"), ("ssh", "sss")):
        for known, unknown in (
            (asker.said(asker.list_only, snapshot=ours, paths=[path]) for path in (there, missing)),
            (asker.said(asker.browse, listing="versions", path=path) for path in (there, missing)),
            (asker.said(asker.browse, listing="ls", snapshot=ours, path=path) for path in (there, missing)),
        ):
            assert known == unknown
            assert known.startswith("REFUSED")
    known, unknown = (
        asker.said(asker.browse, listing="ls", snapshot=SnapshotChoice(name)) for name in (after, "never")
    )
    assert known == unknown


def test_two_snapshots_with_paths_differ_in_these_alone(machine: BackedUpMachine) -> None:
    before, _approved, after = machine.snapshots()
    asker = Asker(machine, replace(granted(None, b"ssh"), snapshot=None))
    rows = asker.browse(listing="diff", snapshot=SnapshotChoice(before), other=SnapshotChoice(after))
    assert [row.path for row in rows[:-1]] == ["ssh/sshd_config"]


def test_a_machine_sees_all_of_its_own(machine: BackedUpMachine) -> None:
    before, approved, after = machine.snapshots()
    asker = Asker(machine, AccessGrant(OWN, "etc", AccessRequest(OWN, "browse", "etc")))
    assert [row.name for row in asker.browse(listing="snapshots")[:-1]] == [before, approved, after]
    assert asker.browse(listing="ls")[-1] == BrowseEnd(snapshot=after)
    assert len(asker.browse(listing="versions", path="ssh/sshd_config")) == 4
    assert "there is shadow" in asker.said(asker.list_only, paths=["shadox"])
    assert asker.browse(listing="ls", snapshot=SnapshotChoice(before[4:12]))[-1] == BrowseEnd(snapshot=before)
    assert asker.browse(listing="ls", snapshot=SnapshotChoice(before[-4:]))[-1] == BrowseEnd(snapshot=before)
    assert "'turku-agent versions SOURCE PATH' shows" in asker.said(asker.list_only, paths=["gone"])
    assert f"the newest is {after}" in asker.said(asker.browse, listing="ls", snapshot=SnapshotChoice("never"))


class Coordinator:
    """A coordinator that answers as the real one does, and remembers the first message."""

    def __init__(self, choice: SnapshotChoice | None) -> None:
        self.choice = choice
        self.resolved: str | None = None
        self.reported: list[str | None] = []
        self.is_unknown = False

    def granted(self, machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch) -> AccessGrant:
        monkeypatch.setattr(access_grants, "Coordinator", lambda _configuration: self)
        wanted = AccessRequest(OTHER, "browse", "etc", OWN, "7c2a5d0e-9a53-4f7a-8f5d-3f1f2b6f8f01")
        return access_grants.require(machine.storage, wanted)

    def beyond_contract(self) -> "Coordinator":
        return self

    def call(self, _name: str, message: Any, _kind: Any) -> StorageAccessAnswer:
        asked = message(msgspec.UNSET)
        self.reported.append(asked.resolved)
        self.resolved = self.resolved or asked.resolved
        return StorageAccessAnswer(allowed=True, snapshot=self.choice, resolved=self.resolved)


@pytest.mark.parametrize("choice", [None, LATEST, SnapshotChoice("latest"), SnapshotChoice(at="2026-02-03 23:00")])
def test_a_choice_is_settled_once(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch, choice: SnapshotChoice | None
) -> None:
    coordinator = Coordinator(choice)
    newest = machine.snapshots()[-1]
    for _ in range(2):
        asker = Asker(machine, coordinator.granted(machine, monkeypatch))
        for asked in (choice or LATEST, SnapshotChoice(newest)):
            assert asker.browse(listing="ls", snapshot=asked)[-1] == BrowseEnd(snapshot=newest)
        # One more of the same day, and others.
        machine.back_up()
        machine.days(2)
    assert coordinator.reported == [None, newest, None]
    machine.place.snapshot(newest).rename(machine.place.snapshots_dir / "gone")
    with pytest.raises(NotInHistory, match="is not on this storage") as refused:
        Asker(machine, coordinator.granted(machine, monkeypatch))
    assert not any(name in f"{refused.value.message}{refused.value.hint}" for name in machine.snapshots())


def test_the_first_view_settles_the_snapshot(machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = Coordinator(LATEST)
    grant = coordinator.granted(machine, monkeypatch)
    _before, approved, _after = machine.snapshots()
    coordinator.resolved = approved
    assert Asker(machine, grant).browse(listing="ls")[-1] == BrowseEnd(snapshot=approved)


@pytest.mark.parametrize(
    "choice",
    [SnapshotChoice("never"), SnapshotChoice(at="2000-01-01"), SnapshotChoice("etc_2026"), SnapshotChoice("20260203")],
)
def test_a_choice_that_means_nothing_is_refused_without_a_name(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch, choice: SnapshotChoice
) -> None:
    with pytest.raises(NotInHistory) as refused:
        Asker(machine, Coordinator(choice).granted(machine, monkeypatch))
    assert "2026" not in f"{refused.value.message}{refused.value.details}{refused.value.hint}"


def test_a_source_without_history_has_its_tree(machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.place.snapshots_dir.rename(machine.machine_dir / "elsewhere")
    machine.place.working_tree.mkdir()
    (machine.place.working_tree / "file").write_text("x")
    asker = Asker(machine, Coordinator(LATEST).granted(machine, monkeypatch))
    plan, manifest, _end = asker.list_only()
    assert (plan.snapshot, [entry.path for entry in manifest.entries]) == (CURRENT, ["file"])


def test_a_catalog_that_cannot_be_used_names_nothing(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _before, approved, after = machine.snapshots()
    own = Asker(machine, AccessGrant(OWN, "etc", AccessRequest(OWN, "browse", "etc")))
    asker = Asker(machine, granted(approved))

    def unusable(*_arguments: object, **_options: object) -> None:
        raise CatalogUnusable(f"cannot read {after}")

    monkeypatch.setattr(catalog, "open_catalog", unusable)
    assert after not in asker.said(asker.browse, listing="ls", snapshot=SnapshotChoice(approved))
    assert after in caplog.text
    assert after in own.said(own.browse, listing="ls")


def test_entries_are_of_what_was_asked_for(machine: BackedUpMachine) -> None:
    asker = Asker(machine, granted(machine.snapshots()[1]))
    choice = SnapshotChoice(machine.snapshots()[1])
    with (
        restore_plan.prepared(
            machine.storage, asker.view, FileRestoreRequest("etc", TEMPORARY_NAME, choice, ["ssh"])
        ) as (prepared, _answer),
        prepared.recorded(machine.storage) as recorded,
    ):
        assert recorded.expected(b"shadow") is None
        assert recorded.expected(b"ssh/key") is not None


def test_nobody_reaches_history_beside_the_view() -> None:
    """``browse`` and ``plan`` answer machines: they get what they tell out of a view, and open nothing themselves."""
    packages = {"disk", "snapshots"}
    names = {"SourceDirectory", "find_sources", "open_catalog", "stored_snapshots"}
    forbidden = packages | names | {"history", "source_lookup", "volumes"}
    root = Path(str(catalog.__file__)).parent.parent
    defined = {path.stem for path in root.rglob("*") if path.suffix in ("", ".py")}
    for path in root.rglob("*.py"):
        defined |= {getattr(node, "name", "") for node in ast.walk(ast.parse(path.read_text()))}
    assert forbidden <= defined
    for module in (browse, restore_plan):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        imported = {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("turku.storage")
            for name in (*(alias.name for alias in node.names), *(node.module or "").split("."))
        }
        assert not imported & forbidden, module.__name__


def test_the_catalog_itself_has_no_other_names(machine: BackedUpMachine) -> None:
    _before, approved, _after = machine.snapshots()
    asker = Asker(machine, granted(approved, b"ssh"))
    with asker.view.catalog() as opened:
        assert [each.name for each in opened.snapshots()] == [approved]
        paths = {entry.path for entry in opened.oldest_checked(100)}
        assert paths == {b"ssh/key", b"ssh/sshd_config"}


def test_a_coordinator_of_the_existing_system_grants_one_s_own_alone(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Existing(Coordinator):
        def call(self, _name: str, _message: Any, _kind: Any) -> StorageAccessAnswer:
            raise ApiNotFound("no such call")

    with pytest.raises(NotInHistory):
        Existing(None).granted(machine, monkeypatch)
    assert names.machine_uuid(OWN) == OWN
    own = access_grants.require(machine.storage, AccessRequest(OWN, "browse", "etc"))
    assert own.snapshot is None
    assert history_view.HistoryView(machine.storage, own, clock=machine.clock).scope.snapshot is None


@pytest.mark.parametrize("refusal", [ApiRefused, ApiRejected, ApiForbidden, ApiThrottled])
def test_no_other_refusal_grants_anything(
    refusal: type[ApiRefused], machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 405 is a plain ApiRefused: a proxy that forwards no POST must not overrule the coordinator's policies.
    class Refusing(Coordinator):
        def call(self, _name: str, _message: Any, _kind: Any) -> StorageAccessAnswer:
            raise refusal("refused with 405")

    monkeypatch.setattr(access_grants, "Coordinator", lambda _configuration: Refusing(None))
    with pytest.raises(refusal):
        access_grants.require(machine.storage, AccessRequest(OWN, "browse", "etc"))


def test_a_moment_is_settled_by_the_clock_of_its_first_use(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(SnapshotChoice(at="1 day ago"))
    first = Asker(machine, coordinator.granted(machine, monkeypatch)).view.scope.snapshot
    machine.clock.moment += timedelta(days=30)
    assert Asker(machine, coordinator.granted(machine, monkeypatch)).view.scope.snapshot == first
