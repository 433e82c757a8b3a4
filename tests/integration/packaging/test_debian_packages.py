"""The scripts that bring what a Makefile target needs: against stand-ins for apt, and the real dpkg's order of versions."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.markdown import REPOSITORY

from turku.core import command
from turku.storage.rsync import version

REQUIRE = REPOSITORY / "packaging" / "require-debian-packages.sh"
OLD_RSYNC = REPOSITORY / "packaging" / "old-rsync.sh"
OLD, NEW, NEWER = "3.2.7-1+deb12u6", "3.5.0+ds1-0+deb12u1", "3.5.2+ds1-0+deb12u1"
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg") is None, reason="no Debian")

STAND_INS = {
    "id": 'echo "$TURKU_STAND_IN_USER"',
    "dpkg-query": """
for package; do :; done
[ "$package" = rsync ] || { echo "installed 1-1"; exit; }
[ ! -s {directory}/installed ] || echo "installed $(cat {directory}/installed)"
""",
    "apt-cache": """
case $1 in
  policy) printf 'rsync:\\n  Candidate: %s\\n' "$(cat {directory}/offered)" ;;
  madison) while read -r version; do echo "     rsync | $version | http://example.com bookworm/main"; done <{directory}/offered ;;
esac
""",
    "apt-get": """
echo "$*" >>{directory}/log
case $1 in
  update) [ ! -e {directory}/renewed ] || cp {directory}/renewed {directory}/offered ;;
  install) cp {directory}/offered {directory}/installed ;;
esac
""",
    "rsync": 'echo "rsync  version $(sed "s/[-+].*//" {directory}/installed)  protocol version 32"',
    "ssh": 'echo "OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.19" >&2',
}


@dataclass
class Host:
    """A Debian as apt and dpkg tell of it."""

    directory: Path
    user: int = 0

    def run(self, *arguments: str | Path) -> command.CompletedProgram:
        return command.run(
            ["env", f"TURKU_STAND_IN_USER={self.user}", *arguments],
            timeout_seconds=60,
            extra_environment={"PATH": f"{self.directory}:{os.environ['PATH']}"},
            check=False,
        )

    @property
    def asked_of_apt(self) -> list[str]:
        log = self.directory / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for name, script in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script.replace('{directory}', str(tmp_path))}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "installed").write_text(NEW)
    (tmp_path / "offered").write_text(NEW)
    return Host(tmp_path)


@needs_dpkg
def test_nothing_is_asked_of_apt_where_all_is_there(host: Host) -> None:
    done = host.run(REQUIRE, "test")
    assert done.exit_code == 0, done.last_lines
    assert host.asked_of_apt == []
    assert done.stdout.decode() == f"rsync 3.5.0 ({host.directory}/rsync), OpenSSH_9.2p1 Debian-2\n"


INSTALL = "install -qq -y --no-install-recommends rsync"


@needs_dpkg
@pytest.mark.parametrize(
    ("installed", "offered", "renewed", "asked"),
    [
        (OLD, NEW, None, [INSTALL]),
        (OLD, OLD, NEW, ["update -qq", INSTALL]),
        (OLD, "(none)", NEW, ["update -qq", INSTALL]),
        ("", OLD, NEW, ["update -qq", INSTALL]),
        (NEW, NEWER, None, [INSTALL]),
        # A person's own is left alone.
        (NEWER, NEW, None, []),
        (NEW, OLD, None, []),
    ],
)
def test_rsync_becomes_the_newest_that_is_offered(
    host: Host, installed: str, offered: str, renewed: str | None, asked: list[str]
) -> None:
    (host.directory / "installed").write_text(installed)
    (host.directory / "offered").write_text(offered)
    if renewed is not None:
        (host.directory / "renewed").write_text(renewed)
    done = host.run(REQUIRE, "demo")
    assert done.exit_code == 0, done.last_lines
    assert host.asked_of_apt == asked
    assert re.search(r"^rsync 3\.5\.[02] ", done.stdout.decode(), re.MULTILINE)
    # Again, it is quick.
    before = host.asked_of_apt
    assert host.run(REQUIRE, "demo").exit_code == 0
    assert host.asked_of_apt == before


@needs_dpkg
def test_a_distribution_without_a_new_one_is_named(host: Host) -> None:
    for name in ("installed", "offered"):
        (host.directory / name).write_text(OLD)
    done = host.run(REQUIRE, "demo")
    assert done.exit_code == 0
    assert host.asked_of_apt == ["update -qq"]
    assert f"this distribution offers rsync {OLD}: a storage refuses one older than 3.5.0" in "\n".join(done.last_lines)


@needs_dpkg
@pytest.mark.parametrize("installed", ["", OLD])
def test_a_user_without_root_sees_the_command_to_run(host: Host, installed: str) -> None:
    host.user = 1000
    (host.directory / "installed").write_text(installed)
    done = host.run(REQUIRE, "demo")
    assert done.exit_code == 69
    expected = "missing Debian packages; as root, run: apt-get install --no-install-recommends rsync"
    assert done.last_lines == (expected,)
    assert host.asked_of_apt == []


def test_the_needed_rsync_is_the_oldest_that_a_storage_accepts() -> None:
    assert f"\nneeded_rsync={version.MINIMUM} " in REQUIRE.read_text()


def test_a_distribution_without_the_old_rsync_is_named(host: Host) -> None:
    done = host.run(OLD_RSYNC, host.directory / "cache")
    assert done.exit_code == 0
    assert done.stdout == b""
    assert host.asked_of_apt == ["update -qq"]
    [expected] = done.last_lines
    assert re.fullmatch(r"rsync 3\.2\.7 is not tried: .+ does not offer it", expected)


def test_a_download_that_fails_is_a_failure_and_leaves_nothing(host: Host) -> None:
    (host.directory / "offered").write_text(f"{NEW}\n{OLD}\n")
    (host.directory / "apt-get").write_text(f'#!/bin/sh\necho "$*" >>{host.directory}/log\nexit 100\n')
    done = host.run(OLD_RSYNC, host.directory / "cache")
    assert done.exit_code == 100
    assert host.asked_of_apt == [f"download -qq -o APT::Sandbox::User=root rsync={OLD}"]
    assert list((host.directory / "cache").iterdir()) == []
