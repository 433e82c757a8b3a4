"""The way from SQLite to PostgreSQL that docs/howto/postgresql.md describes, audit log included."""

import re
import shlex
from pathlib import Path

import pytest
from tests.support import markdown
from tests.support.coordinator import Coordinator
from tests.support.http_cast import HttpCast
from tests.support.postgresql import PostgresqlServer


def documented(command: str, dump: Path) -> list[str]:
    """The arguments of that command of `turku-api` on the page, with another file."""
    page = (markdown.REPOSITORY / "docs/howto/postgresql.md").read_text()
    [line] = re.findall(rf"^# turku-api ({command} .*)$", page, re.MULTILINE)
    return [str(dump) if word.endswith(".json") else word for word in shlex.split(line)]


@pytest.mark.postgresql
def test_a_fleet_moves_with_all_that_is_known_of_it(tmp_path: Path, postgresql_server: PostgresqlServer) -> None:
    dump = tmp_path / "dump.json"
    state = tmp_path / "state"
    with Coordinator(state) as old:
        cast = HttpCast.introduce(old)
        cast.bob.succeeded(cast.alice.uuid, "etc")
        entries = old.sql("SELECT id, action, subject_key FROM audit_auditentry ORDER BY id")
        old.manage(*documented("dumpdata", dump))
    with Coordinator(state, postgresql_server.create_database("moved")) as new:
        new.manage(*documented("loaddata", dump))
        assert new.sql("SELECT id, action, subject_key FROM audit_auditentry ORDER BY id") == entries
        cast.coordinator, cast.alice.post, cast.bob.post = new, new.post, new.post
        assert set(cast.alice.due()) == {"home"}
        cast.alice.update_config({"etc": {"path": "/etc", "comment": "moved"}})
        cast.bob.succeeded(cast.alice.uuid, "etc")
        assert len(new.sql("SELECT id FROM audit_auditentry")) == len(entries) + 2
        assert len(new.sql("SELECT id FROM backups_backuprun")) == 2
