"""The coordinator's own backups, and the way back from them, with SQLite and with PostgreSQL."""

import json
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.coordinator import Coordinator
from tests.support.http_cast import HttpCast
from tests.support.postgresql import PostgresqlServer

from turku.errors import CommandFailed


@dataclass
class Lost:
    """A coordinator that ran, was backed up and is gone, and what its machine and storage know."""

    cast: HttpCast
    backups: Path
    engine: str
    server: PostgresqlServer | None
    entries: list[dict[str, object]]

    def new_database(self, name: str) -> str | None:
        return None if self.server is None else self.server.create_database(name)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def lost(request: pytest.FixtureRequest, tmp_path: Path) -> Lost:
    server = request.getfixturevalue("postgresql_server") if request.param == "postgresql" else None
    url = None if server is None else server.create_database(f"lost_{tmp_path.name[-8:].replace('-', '_')}")
    state, backups = tmp_path / "old", tmp_path / "backups"
    with Coordinator(state, url) as old:
        (state / "tls").mkdir(mode=0o700)
        (state / "tls" / "key.pem").write_text("a private key\n")
        cast = HttpCast.introduce(old)
        cast.bob.succeeded(cast.alice.uuid, "etc")
        old.manage("backup", str(backups))
        entries = old.sql("SELECT id, action, subject_key FROM audit_auditentry ORDER BY id")
        # Later than the backup.
        cast.bob.succeeded(cast.alice.uuid, "home")
    shutil.rmtree(state)
    return Lost(cast, backups, request.param, server, entries)


def only_backup(backups: Path) -> Path:
    [found] = (path for path in backups.iterdir() if not path.name.startswith("."))
    return found


def test_a_coordinator_comes_back_with_all_that_it_knew(lost: Lost, tmp_path: Path) -> None:
    state = tmp_path / "new"
    url = lost.new_database(f"new_{tmp_path.name[-8:].replace('-', '_')}")
    new = Coordinator(state, url)
    said = new.manage("recover", str(lost.backups))
    assert "Recovered: " in said
    assert "Next:" in said
    assert (state / "tls" / "key.pem").read_text() == "a private key\n"
    with new:
        recovered = new.sql("SELECT id, action, subject_key FROM audit_auditentry ORDER BY id")
        assert recovered[:-1] == lost.entries
        assert recovered[-1]["action"] == "coordinator.recovered"
        cast = lost.cast
        cast.coordinator, cast.alice.post, cast.bob.post = new, new.post, new.post
        # The second backup came after the copy.
        assert set(cast.alice.due()) == {"home"}
        cast.bob.succeeded(cast.alice.uuid, "home")
        cast.alice.update_config({"etc": {"path": "/etc", "comment": "recovered"}})


@pytest.fixture(scope="module")
def whole_backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    coordinator = Coordinator(directory / "state")
    with coordinator:
        coordinator.manage("backup", str(directory / "backups"))
    return directory / "backups"


def test_files_are_private_and_listed(whole_backup: Path) -> None:
    made = only_backup(whole_backup)
    for path in (whole_backup, *made.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    listed = json.loads((made / "manifest.json").read_text())
    there = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert set(listed["files"]) == there - {"manifest.json"}
    assert {"manifest.json", "db.sqlite3", "settings/hash_key", "settings/environment"} <= there


def test_a_living_database_is_replaced_only_on_demand_and_kept(lost: Lost, tmp_path: Path) -> None:
    url = lost.new_database(f"living_{tmp_path.name[-8:].replace('-', '_')}")
    state = tmp_path / "living"
    with Coordinator(state, url) as living:
        HttpCast.introduce(living)
    with pytest.raises(CommandFailed) as refused:
        living.manage("recover", str(lost.backups))
    assert "is in use" in str(refused.value.details)
    said = living.manage("recover", str(lost.backups), "--replace")
    kept = [Path(line.removeprefix("Kept: ")) for line in said.splitlines() if line.startswith("Kept: ")]
    assert kept
    assert all(path.exists() for path in kept)
    with living:
        found = living.sql("SELECT id, action, subject_key FROM audit_auditentry ORDER BY id")
        assert found[: len(lost.entries)] == lost.entries


@pytest.mark.parametrize("fault", ["changed", "missing", "newer", "no manifest", "odd name"])
def test_a_damaged_backup_is_refused_before_anything_is_written(whole_backup: Path, tmp_path: Path, fault: str) -> None:
    backups = tmp_path / "backups"
    shutil.copytree(whole_backup, backups)
    made = only_backup(backups)
    key, manifest = made / "settings" / "hash_key", made / "manifest.json"
    content = json.loads(manifest.read_text())
    match fault:
        case "changed":
            key.write_text("x" * 64)
        case "missing":
            key.unlink()
        case "newer":
            content["migrations"]["fleet"].append("9999_from_the_future")
            manifest.write_text(json.dumps(content))
        case "no manifest":
            manifest.unlink()
        case _:
            content["files"]["../outside"] = content["files"]["settings/hash_key"]
            manifest.write_text(json.dumps(content))
    state = tmp_path / "new"
    with pytest.raises(CommandFailed):
        Coordinator(state).manage("recover", str(backups))
    assert not (state / "hash_key").exists()


def test_a_certificate_from_elsewhere_is_in_the_backup_and_named(tmp_path: Path) -> None:
    paths = {name: tmp_path / "elsewhere" / name for name in ("certificate", "key")}
    (tmp_path / "elsewhere").mkdir()
    for name, path in paths.items():
        path.write_text(f"a {name}\n")
    variables = {"TURKU_TLS_CERTIFICATE": str(paths["certificate"]), "TURKU_TLS_KEY": str(paths["key"])}
    with Coordinator(tmp_path / "state") as coordinator:
        coordinator.manage("backup", str(tmp_path / "backups"), environment=variables)
    made = only_backup(tmp_path / "backups")
    assert (made / "settings" / "tls_key").read_text() == "a key\n"
    paths["key"].unlink()
    said = Coordinator(tmp_path / "new").manage("recover", str(tmp_path / "backups"), environment=variables)
    assert f"Missing: {paths['key']}. Copy {made}/settings/tls_key there" in said
    assert str(paths["certificate"]) not in said


def test_only_the_newest_are_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir(mode=0o700)
    (backups / "2020-01-01T000000Z").mkdir()
    (backups / "photos").mkdir()
    (backups / ".unfinished-1234").mkdir()
    with Coordinator(tmp_path / "state") as coordinator:
        for _ in range(3):
            coordinator.manage("backup", str(backups), "--keep", "2")
    names = {path.name for path in backups.iterdir()} - {".backup.lock"}
    assert len(names) == 4
    assert {"2020-01-01T000000Z", "photos"} < names


def test_a_backup_is_of_one_state_while_others_write(coordinator: Coordinator, tmp_path: Path) -> None:
    cast = HttpCast.introduce(coordinator)
    is_over = threading.Event()

    def write() -> None:
        while not is_over.is_set():
            with suppress(AssertionError):
                cast.bob.succeeded(cast.alice.uuid, "etc")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        coordinator.manage("backup", str(tmp_path / "backups"))
    finally:
        is_over.set()
        writer.join()
    manifest = json.loads((only_backup(tmp_path / "backups") / "manifest.json").read_text())
    assert manifest["rows"]["machines"] > 0
