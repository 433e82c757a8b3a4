"""M10 through all programs: agent, ssh, storage, coordinator's audit log, and the operator's review."""

import json
from pathlib import Path

from tests.support.fleet import Fleet

from turku.demo import programs


def test_an_encrypted_machine_is_on_the_audit_log_until_the_operator_has_reviewed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        (source / f"file{number}").write_text(f"{number}\n" * 100)
    with Fleet(tmp_path / "fleet") as fleet:
        storage = fleet.storage("primary")
        machine = fleet.machine("web-0", {"etc": {"path": str(source), "retention": "last 1 snapshots"}})

        def ping() -> None:
            fleet.make_due(machine)
            machine.ping()

        def operator(*arguments: str) -> str:
            done = programs.run("turku-storage", *arguments, "--config-dir", storage.config_dir)
            return done.stdout.decode()

        ping()
        [good] = fleet.snapshots(machine, "etc")
        for path in source.iterdir():
            path.write_bytes(b"encrypted" * 50)
        ping()
        ping()
        assert good in fleet.snapshots(machine, "etc")
        logged = fleet.query(
            "SELECT actor, subject, new FROM audit_auditentry WHERE action = ? ORDER BY id", "backup.quarantined"
        )
        [(_actor, subject, new)] = logged
        assert subject == "etc"
        assert "100% of the files were rewritten (30 of 30)" in str(new)
        assert fleet.runs(machine, "etc")[-1]["summary"].startswith("ANOMALY: ")
        listed = json.loads(operator("quarantine", "list", "--json"))
        assert [each["review"] for each in listed] == [None, None]
        said = operator("quarantine", "reject", "--machine", "web-0", "--source", "etc")
        assert "applies to etc again from its next backup on" in said
        assert operator("trash", "list", "--machine", machine.uuid) == "the trash is empty\n"
