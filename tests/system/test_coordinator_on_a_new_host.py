"""Root recovers a coordinator on a bare system: settings, keys and database come back, each for the right user."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import whole_system
from tests.support.whole_system import RunningSystem

from turku.core.command import CompletedProgram

pytestmark = [pytest.mark.root, pytest.mark.timeout(900), pytest.mark.xdist_group("whole-system")]

SCRIPT = "import sys; sys.argv[0] = 'turku-api'; from turku.api.cli import entry as run; run()"


def turku_api(system: RunningSystem, *arguments: str) -> str:
    """The output of a command, run by root without any variable, as an administrator does."""
    ended: CompletedProgram = system.shell("/usr/bin/python3", "-c", SCRIPT, *arguments, codes=range(256))
    text = "\n".join((ended.stdout.decode(), *ended.last_lines))
    assert ended.exit_code == 0, text
    return text


@pytest.fixture
def system(tmp_path: Path) -> Iterator[RunningSystem]:
    root = tmp_path / "root"
    try:
        with whole_system.running_system(root) as running:
            yield running
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_all_is_in_its_place_and_the_services_user_can_use_it(system: RunningSystem) -> None:
    root = system.root
    system.shell("useradd", "--system", "--home-dir", "/var/lib/turku-api", "turku-api")
    system.shell("install", "-d", "-m", "0750", "-g", "turku-api", "/etc/turku-api")
    for directory in ("/var/lib/turku-api", "/var/backups/turku-api"):
        system.shell("install", "-d", "-m", "0700", "-o", "turku-api", "-g", "turku-api", directory)
    settings = root / "etc/turku-api/environment"
    settings.write_text("TURKU_ALLOWED_HOSTS=coordinator.example.com\n")
    system.shell("chown", "root:turku-api", "/etc/turku-api/environment")
    settings.chmod(0o640)
    turku_api(system, "migrate", "--verbosity", "0")
    turku_api(system, "auth-create", "storage_reg", "--name", "storages")
    turku_api(system, "backup")

    # A copy that only root can read, on a host that has the program and its user alone.
    system.shell("cp", "-r", "--no-preserve=ownership", "/var/backups/turku-api", "/root/copy")
    system.shell("chmod", "-R", "go=", "/root/copy")
    shutil.rmtree(root / "etc/turku-api")
    for path in (root / "var/lib/turku-api").iterdir():
        path.unlink()
    said = turku_api(system, "recover", "/root/copy")
    assert "Written: /etc/turku-api/environment" in said

    listed = system.shell("ls", "-ld", "/etc/turku-api", "/etc/turku-api/environment").stdout.decode()
    assert re.findall(r"^(\S+) \S+ +(\S+) (\S+)", listed, re.MULTILINE) == [
        ("drwxr-x---", "root", "turku-api"),
        ("-rw-r-----", "root", "turku-api"),
    ]
    owned = system.shell(
        "stat", "-c", "%U %a %n", *(f"/var/lib/turku-api/{each}" for each in ("db.sqlite3", "hash_key"))
    )
    assert {line.rsplit(" ", 1)[0] for line in owned.stdout.decode().splitlines()} == {"turku-api 600"}
    assert "storages" in turku_api(system, "join-token", "list")
