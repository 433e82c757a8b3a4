"""A real sshd that asks ``turku-storage authorized-keys``: a machine that has just registered is let in at once."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.coordinator import Coordinator
from tests.support.rsyncd import Rsyncd
from tests.support.sshd import free_port
from tests.support.storage_host import PROGRAMS, StorageHost
from tests.support.v1_client import V1Machine, new_ssh_key

from turku.storage.registration.acting_user import only_root_can_change

PROGRAM = PROGRAMS / "turku-storage"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="sshd runs the command only where root owns it"),
    pytest.mark.skipif(
        not only_root_can_change(PROGRAM), reason=f"sshd wants every directory of {PROGRAM} to be root's"
    ),
]


@dataclass
class Site:
    coordinator: Coordinator
    storage: StorageHost
    machine_auth: str

    def machine(self, name: str, source: Path) -> tuple[V1Machine, Path]:
        """Return a machine that registers now, and its key. The storage does not hear of it."""
        key = self.storage.sshd.new_key(name)
        public_key = Path(f"{key}.pub").read_text().strip()
        machine = V1Machine(self.coordinator.post, self.machine_auth, unit_name=name, ssh_public_key=public_key)
        machine.update_config({"etc": {"path": str(source)}})
        return machine, key

    def back_up(self, key: Path, source: Path, directory: Path) -> tuple[int, str]:
        """Return the end of a session of the machine with that key."""
        port = free_port()
        with Rsyncd(directory, {"etc": source}) as daemon:
            request = {
                "verbose": True,
                "action": "checkin",
                "port": port,
                "sources": {"etc": {"username": daemon.username, "password": daemon.password}},
            }
            with self.storage.session(key, "-R", f"{port}:127.0.0.1:{daemon.port}", request=request) as side:
                return side.wait(40), side.output

    def asked(self) -> int:
        """Return the number of times that the coordinator was asked for the machines."""
        return len(re.findall(r"machines? admitted", self.storage.log))

    @contextmanager
    def without_coordinator(self) -> Iterator[None]:
        """A block in which the storage's coordinator does not answer, and was not asked a moment ago."""
        self.forget_when_it_was_asked()
        self.storage.write_configuration(api_url="http://127.0.0.1:1/v1")
        try:
            yield
        finally:
            self.storage.write_configuration(api_url=self.coordinator.url)

    def forget_when_it_was_asked(self) -> None:
        (self.storage.var_dir / "machines_asked.json").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for path in PROGRAM.parents:
        if path.stat().st_mode & 0o022 or path.stat().st_uid != 0:
            pytest.skip(f"sshd runs no command below {path}: others than root may write there")
    directory = tmp_path_factory.mktemp("site")
    lines = [
        f"AuthorizedKeysCommand {PROGRAM} authorized-keys --config-dir {directory}/storage/etc %u %t %k",
        "AuthorizedKeysCommandUser root",
        # What lets in is the command alone.
        "AuthorizedKeysFile none",
    ]
    with Coordinator(directory / "coordinator") as coordinator:
        machine_auth = coordinator.create_auth("machine_reg")
        storage_auth = coordinator.create_auth("storage_reg")
        with StorageHost(
            directory / "storage", api_url=coordinator.url, api_auth=storage_auth, sshd_lines=lines
        ) as storage:
            storage.update_config()
            yield Site(coordinator, storage, machine_auth)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "file").write_text("content")
    return path


def test_a_machine_that_registered_after_the_last_update_config_backs_up_at_once(
    site: Site, source: Path, tmp_path: Path
) -> None:
    machine, key = site.machine("newcomer", source)
    site.forget_when_it_was_asked()
    exit_code, output = site.back_up(key, source, tmp_path / "rsyncd")
    assert exit_code == 0, output
    snapshot = site.storage.volume / machine.uuid / "etc.snapshots" / "latest"
    assert (snapshot / "file").read_text() == "content"
    # Its line is in the file as well, as after turku-storage-update-config.
    said = site.storage.run(
        "turku-storage", "authorized-keys", site.storage.sshd.user, *machine.ssh_public_key.split()[:2]
    )
    assert said.stdout.decode().splitlines() == [line for line in site.storage.lines if machine.uuid in line]


def test_keys_of_nobody_get_nothing_and_make_it_ask_once(site: Site) -> None:
    site.forget_when_it_was_asked()
    before = site.asked()
    begin = time.monotonic()
    for number in range(3):
        stranger = site.storage.sshd.new_key(f"stranger-{number}")
        with site.storage.session(stranger) as side:
            assert side.wait() == 255
            assert "Permission denied (publickey)" in side.output
    for _ in range(3):
        said = site.storage.run("turku-storage", "authorized-keys", site.storage.sshd.user, *new_ssh_key().split()[:2])
        assert said.stdout == b""
    assert site.asked() - before <= 1 + (time.monotonic() - begin) // 15


def test_machines_that_are_known_get_in_while_the_coordinator_is_away(site: Site, source: Path) -> None:
    _machine, key = site.machine("old-hand", source)
    site.storage.update_config()
    stranger = site.storage.sshd.new_key("stranger-meanwhile")
    with site.without_coordinator():
        with site.storage.session(key, request=b"{}\n.\n") as side:
            # It is let in, and its forced command answers.
            assert side.wait() == 76
        with site.storage.session(stranger) as side:
            assert side.wait() == 255


def test_a_machine_that_is_disabled_is_not_let_in(site: Site, source: Path) -> None:
    machine, key = site.machine("leaver", source)
    site.storage.update_config()
    machine.update_config({}, published=False)
    site.storage.update_config()
    with site.storage.session(key, request=b"{}\n.\n") as side:
        assert side.wait() == 255


def test_a_machines_key_opens_no_other_account(site: Site, source: Path) -> None:
    machine, _key = site.machine("climber", source)
    site.storage.update_config()
    words = machine.ssh_public_key.split()[:2]
    assert site.storage.run("turku-storage", "authorized-keys", site.storage.sshd.user, *words).stdout != b""
    assert site.storage.run("turku-storage", "authorized-keys", "nobody", *words).stdout == b""


def test_failures_are_on_the_log_for_sshd_shows_them_to_nobody(site: Site) -> None:
    with site.without_coordinator():
        said = site.storage.run(
            *("turku-storage", "authorized-keys", site.storage.sshd.user, *new_ssh_key().split()[:2]), check=False
        )
    assert (said.exit_code, said.stdout) == (69, b"")
    assert "Connection refused" in site.storage.log.splitlines()[-1]
