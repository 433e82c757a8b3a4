"""M9, M12: links that an earlier fault left on a volume lead nobody astray.

Every program of the storage meets them: a backup with its retention, sessions that look and that restore, and the
commands of the operator. None follows one, nothing is read or written where it leads, and a refusal says which it is.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tests.support.backed_up_machine import fingerprint
from tests.support.fleet import Fleet
from tests.support.forked_command import forked
from tests.support.landed_restore import TEMPORARY_NAME
from tests.support.malicious_rsync_server import MaliciousRsyncServer

from turku.core.secret import Secret
from turku.demo.private_machine import PrivateMachine
from turku.errors import TurkuError
from turku.storage import cli
from turku.storage.config import loading as configuration
from turku.storage.containment import capabilities, sandbox
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.restore.snapshot_lookup import SnapshotTree

# One worker for all of them: they share a fleet.
pytestmark = pytest.mark.xdist_group("old links")
SECRET = "what lies elsewhere"
OLD = "etc_20260101-000000_abcd"
COMMANDS = """
gc
verify
drill
trash list
trash empty --yes
quarantine list
catalog update
snapshots --machine MACHINE SOURCE
ls --machine MACHINE SOURCE
find --machine MACHINE SOURCE *secret*
ls --machine MACHINE SOURCE@latest inner
check
""".strip().splitlines()


class Scene:
    """Mallory's machine with two days of history, and what links of hers could lead to."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet = fleet
        self.source = directory / "source"
        self.source.mkdir()
        self.elsewhere = directory / "elsewhere"
        for name in (OLD, "etc_20260102-000000_abcd", "inner"):
            (self.elsewhere / name).mkdir(parents=True)
            (self.elsewhere / name / "secret").write_text(SECRET)
        (self.elsewhere / f"{OLD}.json").write_text(json.dumps({"name": SECRET}))
        (self.elsewhere / "record.json").write_text(json.dumps({"findings": [SECRET]}))
        (self.elsewhere / "content").write_text(SECRET)
        # Old enough for the trash to be emptied, and for retention.
        (self.elsewhere / ".trash-1000000000-etc_20250101-000000_abcd").mkdir()
        self.storage = fleet.storage("primary", drill_days=1)
        sources = {name: {"path": str(self.source), "retention": "last 1 snapshots"} for name in ("etc", "leak")}
        self.machine: PrivateMachine = fleet.machine("mallory", sources)
        self.day = 0
        for _ in range(2):
            assert self.back_up("etc").exit_code == 0
        self.machine_dir = self.storage.machine_directory(self.machine.uuid).resolve()

    def back_up(self, *sources: str) -> Any:
        self.day += 1
        (self.source / "file").write_text(f"day {self.day}")
        self.fleet.make_due(self.machine, *sources)
        return self.machine.ping(check=False)

    def ask(self, action: str, **request: Any) -> str:
        """Return the answer to the machine's key. Its own rsync daemon is not asked for."""
        required = {"temporary": TEMPORARY_NAME} if action == "restore_files" else {}
        message = json.dumps({"action": action, action: required | request}).encode() + b"\n.\n"
        answer = self._run(cli.ping_entry, "turku-storage-ping", self.machine.uuid, input_bytes=message)
        assert "malformed" not in answer, answer
        return answer

    def command(self, words: str, source: str) -> str:
        """Return the output of a command of the operator."""
        argv = words.replace("MACHINE", self.machine.uuid).replace("SOURCE", source).split()
        return self._run(cli.entry, "turku-storage", *argv)

    def _run(self, entry: Callable[[], NoReturn], *argv: str, input_bytes: bytes = b"") -> str:
        ended = forked(
            entry, [*argv, "--config-dir", str(self.storage.config_dir)], input_bytes=input_bytes, timeout_seconds=120
        )
        assert ended.exit_code not in (None, 70), (argv, ended)
        assert "usage: turku" not in ended.output, ended.output
        assert "Traceback" not in ended.output, ended.output
        return ended.output

    def state(self) -> tuple[object, ...]:
        """Return the state of the files that the links lead to, names, times and all."""
        return fingerprint(self.elsewhere), sorted(path.name for path in self.elsewhere.parent.iterdir())

    @contextmanager
    def planted(self, links: dict[str, str]) -> Iterator[None]:
        """Put the links on the volume for the length of the block, in place of the entries there, which come back."""
        away = self.machine_dir.parent / "away"
        away.mkdir()
        moved: list[tuple[Path, Path]] = []
        paths = []
        try:
            for number, (name, target) in enumerate(links.items()):
                path = self.path(name)
                if os.path.lexists(path):
                    moved.append((path, away / str(number)))
                    path.rename(away / str(number))
                path.symlink_to(target)
                paths.append(path)
            yield
        finally:
            for path in paths:
                if path.is_symlink():
                    path.unlink()
            for path, kept in moved:
                if os.path.lexists(path):
                    subprocess.run(["rm", "-rf", "--", path], check=True)
                kept.rename(path)
            away.rmdir()

    def path(self, name: str) -> Path:
        newest = self.storage.snapshots(self.machine.uuid, "etc")[-1].name
        return self.machine_dir / name.replace("NEWEST", newest)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("links")
    with Fleet(directory / "fleet") as fleet:
        yield Scene(fleet, directory / "fleet")


ELSEWHERE = "ELSEWHERE"
HIDDEN = (".assembling", ".cloning", ".former", ".deleting-1", ".promoting-etc_1", ".repair", ".trash-1-etc_1")
LINKS: dict[str, tuple[dict[str, str], bool]] = {
    # What is planted, and whether a backup is made all the same.
    "another source's snapshots": ({"leak.snapshots": ELSEWHERE}, False),
    "another source": ({"leak": ELSEWHERE}, True),
    "the snapshots": ({"etc.snapshots": ELSEWHERE}, False),
    "the machine": ({"": ELSEWHERE}, False),
    "the lock": ({".etc.lock": f"{ELSEWHERE}/content"}, False),
    "staging": ({"etc.snapshots/.staging": f"{ELSEWHERE}/inner"}, False),
    "snapshots among snapshots": (
        {
            f"etc.snapshots/{OLD}": f"{ELSEWHERE}/{OLD}",
            "etc.snapshots/x": "/etc",
            "etc.snapshots/etc_20260103-000000_abcd": "../../../../elsewhere/inner",
            "etc.snapshots/latest": f"{ELSEWHERE}/{OLD}",
        },
        True,
    ),
    "hidden trees": ({f"etc.snapshots/{name}": f"{ELSEWHERE}/inner" for name in HIDDEN}, True),
    "files": (
        {
            "etc.snapshots/NEWEST.json": f"{ELSEWHERE}/record.json",
            "etc.snapshots/.in-place": f"{ELSEWHERE}/content",
            "etc.snapshots/.fetch-list": f"{ELSEWHERE}/content",
            "etc.snapshots/.repair-subvolume": f"{ELSEWHERE}/content",
            ".etc.writing": f"{ELSEWHERE}/content",
        },
        True,
    ),
    "files that are not there yet": (
        {
            "etc.snapshots/.fetch-list": f"{ELSEWHERE}/new",
            ".etc.writing": f"{ELSEWHERE}/new",
            "../.catalogs/UUID/etc.damage.json": f"{ELSEWHERE}/new",
            "../.catalogs/UUID/etc.drill.json": f"{ELSEWHERE}/new",
            "../.catalogs/UUID/etc.verified": f"{ELSEWHERE}/new",
        },
        True,
    ),
    "the catalog": ({"../.catalogs/UUID/etc.sqlite": f"{ELSEWHERE}/new"}, True),
    "the catalogs of the machine": ({"../.catalogs/UUID": f"{ELSEWHERE}/inner"}, True),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", LINKS)
def test_m9_an_old_link_is_followed_by_nobody(scene: Scene, name: str) -> None:
    links, is_backed_up = LINKS[name]
    links = {
        path.replace("UUID", scene.machine.uuid): target.replace(ELSEWHERE, str(scene.elsewhere))
        for path, target in links.items()
    }
    before = scene.state()
    source = "leak" if any(path.startswith("leak") for path in links) else "etc"
    with scene.planted(links):
        answers = ask_everything(scene, source)
        # Again after the backup, which may take a link away.
        made = scene.back_up(source)
        said = "\n".join(made.last_lines)
        assert (made.exit_code == 0) == is_backed_up, said
        assert "Traceback" not in said
        if not is_backed_up:
            assert any(
                word in said for word in ("is not a directory", "is not there", "cannot open the lock", "link")
            ), said
        answers += ask_everything(scene, source)
        for each in answers:
            assert SECRET not in each
            assert '"secret"' not in each
            assert "inner/secret" not in each
            assert "passwd" not in each
        assert scene.state() == before
    # And what is there is whole.
    assert scene.back_up("etc").exit_code == 0
    newest = scene.storage.snapshots(scene.machine.uuid, "etc")[-1]
    assert (newest / "file").read_text() == f"day {scene.day}"


def ask_everything(scene: Scene, source: str) -> list[str]:
    """Ask for everything that a session or a command tells of the source."""
    answers = [
        scene.ask("browse", listing="snapshots", sources=[source]),
        scene.ask("browse", listing="ls", sources=[source]),
        scene.ask("browse", listing="find", sources=[source], pattern="*secret*"),
    ]
    for chosen in (OLD, "x", "inner", "latest"):
        answers.append(scene.ask("browse", listing="ls", sources=[source], snapshot={"name": chosen}))
        answers.append(scene.ask("restore_files", source=source, snapshot={"name": chosen}, list_only=True))
    return answers + [scene.command(words, source) for words in COMMANDS]


def test_m12_a_tree_that_became_a_link_after_the_plan_is_not_sent(scene: Scene, tmp_path: Path) -> None:
    # F2 of the audit: for as long as a person is asked, the tree could be swapped. It is opened, not believed.
    storage = configuration.load(scene.storage.config_dir)
    newest = scene.storage.snapshots(scene.machine.uuid, "etc")[-1].name
    with scene.planted({f"etc.snapshots/{newest}": str(scene.elsewhere / "inner")}):
        place = SourceDirectory(scene.machine_dir, "etc")
        kept = SnapshotTree(place, newest, place.snapshot(newest), None)
        with (
            MaliciousRsyncServer([]) as server,
            pytest.raises((TurkuError, OSError)),
            sandbox.contained_rsync(
                lambda _seen: ["cat", "secret"],
                configuration=storage,
                password=Secret("x"),
                directory=kept.path,
                capabilities=capabilities.of_sender(storage.receiving),
                port=server.port,
            ) as child,
        ):
            raise AssertionError(child.stdout.read())
