"""Packages on a bare host: complete, quiet, and without effect until a program's setup."""

from pathlib import Path

import pytest
from tests.hosts.conftest import Bare
from tests.hosts.host import Host
from tests.hosts.releases import Release

ROLES = ("turku-agent", "turku-storage", "turku-api")
PROGRAMS = (
    *("turku-agent", "turku-agent-ping", "turku-update-config"),
    *("turku-storage", "turku-storage-ping", "turku-storage-update-config"),
    *("turku-api", "turku_auth_create", "turku_health", "turku_clean_logs"),
)
READERS = ("man-db", "bash-completion", "zsh", "fish")
"""Readers of manual pages and completion. ``packaging/host-roots.sh`` fetches them."""
OWNERS_AND_MODES = {
    "/etc/turku-agent/sources.d": "root:root 700",
    "/etc/turku-storage/config.d": "root:root 700",
    "/etc/turku-api": "root:turku-api 750",
    "/var/lib/turku-agent": "turku-agent:turku-agent 700",
    "/var/lib/turku-api": "turku-api:turku-api 700",
    "/var/lib/turku-storage": "root:root 711",
    "/var/lib/turku-storage-login": "turku-storage:turku-storage 755",
}


@pytest.mark.parametrize("release", Release, ids=lambda release: release.value)
def test_packages_are_complete_and_start_nothing(bare: Bare, release: Release) -> None:
    host = bare("turku", release)
    said = host.install(*release.packages(*ROLES))
    ours = [line for line in said.splitlines() if "turku" in line.lower()]
    assert [line for line in ours if any(word in line.lower() for word in ("warn", "error", "traceback"))] == []
    host.run(f"apt-get install -y {' '.join(READERS)}", timeout_seconds=300)
    for program in PROGRAMS:
        assert_documented(host, program)
    assert_isolated(host)
    for path, expected in OWNERS_AND_MODES.items():
        assert host.run(f"stat --format='%U:%G %a' {path}").strip() == expected, path
    assert host.run("find /etc/systemd/system -name 'turku*'") == ""
    assert host.run("systemd-analyze verify --man=no /usr/lib/systemd/system/turku-* 2>&1").strip() == ""
    assert_leaves_no_program(host)


def assert_documented(host: Host, program: str) -> None:
    """Look at a program's help, version, manual page and completion."""
    host.run(f"{program} --help")
    if "_" not in program:
        assert host.run(f"{program} --version").startswith("turku ")
    page = host.run(f"man --where {program}").strip()
    assert host.run(f"man --warnings --local-file {page} 2>&1 >/dev/null") == ""
    load = f"_comp_load {program} 2>/dev/null || __load_completion {program}"
    host.run(f"bash --norc -ic '. /usr/share/bash-completion/bash_completion; {load}; complete -p {program}'")
    host.run(f"zsh -fc 'autoload -Uz compinit && compinit -u -d /tmp/zcompdump && whence -v _{program}'")
    host.run(f"fish --no-config --no-execute /usr/share/fish/vendor_completions.d/{program}.fish")


def assert_isolated(host: Host) -> None:
    """See that the programs import what they bring, compiled, and nothing of the user's own."""
    host.run(
        "mkdir -p /tmp/mine/turku && echo 'raise SystemExit(1)' | tee /tmp/mine/turku/__init__.py >/tmp/mine/argparse.py"
    )
    for role in ROLES:
        host.run(f"cd /tmp/mine && PYTHONPATH=/tmp/mine {role} --version")
        name = role.removeprefix("turku-")
        assert host.run(f"find /usr/lib/turku/turku/{name}/__pycache__ -name 'cli.*.pyc'"), f"{role} is not compiled"
        host.run(f"id {role}")
    host.run("test ! -e /usr/lib/turku/turku/demo")
    code = 'import sys; sys.path.insert(0, "/usr/lib/turku"); import psycopg; print(psycopg.pq.__impl__)'
    assert host.run(f"python3 -IS -c '{code}'").strip() == "c"


def assert_leaves_no_program(host: Host) -> None:
    """Remove and purge all packages. Backups and the files of an administrator go when they are told to go."""
    host.run(
        "echo '{}' | tee /etc/turku-agent/config.d/mine.json >/etc/turku-storage/config.d/mine.json;"
        "touch /var/lib/turku-storage/catalog /var/lib/turku-agent/identity"
    )
    packages = f"{' '.join(ROLES)} turku-common"
    said = host.run(f"dpkg --remove {packages} 2>&1")
    for role in ROLES:
        assert any(line.startswith(f"{role}: ") and " stay" in line for line in said.splitlines()), said
    host.run("test ! -e /usr/lib/turku && test -e /etc/turku-agent/config.d/mine.json && test -e /var/lib/turku-api")
    said = host.run(f"dpkg --purge {packages} 2>&1")
    for role in ROLES:
        assert any(line.startswith(f"{role}: ") and " removed" in line for line in said.splitlines()), said
    gone = ("/etc/turku-agent", "/etc/turku-storage", "/etc/turku-api", "/var/lib/turku-agent", "/var/lib/turku-api")
    assert [path for path in (*gone, "/var/lib/turku-storage-login") if (host.root / path.lstrip("/")).exists()] == []
    assert Path(host.root, "var/lib/turku-storage/catalog").exists()
    assert host.failed_units() == ""
