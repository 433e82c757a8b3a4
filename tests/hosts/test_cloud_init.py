"""A new machine that cloud-init sets up with the example, from an archive of packages."""

from pathlib import Path

from tests.hosts import archive
from tests.hosts.fleet import HOSTS, Fleet
from tests.hosts.host import Host
from tests.support.markdown import REPOSITORY

EXAMPLE = REPOSITORY / "packaging/cloud-init/turku-agent.yaml"
SEED = "var/lib/cloud/seed/nocloud"
SETTINGS = "datasource_list: [NoCloud]\nnetwork: {config: disabled}\n"


def test_an_instance_is_backed_up_after_its_first_boot_and_set_up_once(fleet: Fleet, tmp_path: Path) -> None:
    storage, coordinator = fleet.storage, fleet.coordinator
    token = coordinator.run("turku-api join-token create machine --raw").split()[-1]
    release = HOSTS["web-1"]
    instance = fleet.stack.enter_context(Host("web-2", [release.root], fleet.network, tmp_path / "bare"))
    # An image for instances brings cloud-init and knows the operator's archive.
    instance.run("apt-get install -y --no-install-recommends cloud-init", timeout_seconds=300)
    archive.add(instance, release.packages("turku-agent"))
    (instance.root / "etc/cloud/cloud.cfg.d/90-test.cfg").write_text(SETTINGS)
    seed = instance.root / SEED
    seed.mkdir(parents=True)
    (seed / "meta-data").write_text("instance-id: i-1\nlocal-hostname: web-2\n")
    user_data = EXAMPLE.read_text().replace("JOIN,", f"{token},").replace('"ENVIRONMENT"', '"production"')
    (seed / "user-data").write_text(user_data)
    instance.run(f"cloud-init schema --config-file /{SEED}/user-data")

    instance.reboot()
    # 2 stands for errors of modules that go on without what failed: this image has no sshd that needs keys.
    said = instance.run("cloud-init status --long --wait || test $? = 2", timeout_seconds=300)
    assert "status: done" in said
    instance.run("systemctl start turku-agent-ping.service")
    snapshots = "/var/lib/turku-storage/machines/production-web-2/etc.snapshots"
    storage.wait_until(f"test -e {snapshots}/latest/hostname", seconds=90)
    assert coordinator.run("turku-api machine list").count("production-web-2") == 1
    # The next boot does nothing again, and neither does the command.
    uuid = instance.run("cat /var/lib/turku-agent/config.d/*machine_uuid*")
    instance.reboot()
    instance.run("cloud-init status --wait || test $? = 2", timeout_seconds=300)
    assert "is set up: all" in instance.run(f"turku-agent setup {token} --yes --no-wait")
    assert instance.run("cat /var/lib/turku-agent/config.d/*machine_uuid*") == uuid
    assert instance.failed_units() == ""
