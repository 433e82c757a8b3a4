"""The mounts below a directory, read from tables as the kernel writes them."""

from pathlib import Path

from turku.agent.capture import mounts as mount_points

SYSTEM = r"""
22 27 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
23 27 0:21 / /proc rw,nosuid shared:13 - proc proc rw
24 23 0:30 / /proc/sys/fs/binfmt_misc rw shared:14 - autofs systemd-1 rw
25 27 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw
27 1 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 27 253:2 / /home rw,relatime shared:9 master:1 - xfs /dev/vdb rw
31 30 253:3 / /home/a\040b\134c rw - ext4 /dev/vdc rw
32 27 0:40 / /mnt/nas rw - nfs4 nas:/export rw
33 27 253:1 /srv/data /data rw - ext4 /dev/vda1 rw
34 27 0:41 / /run/user/7 rw - fuse.portal portal rw
not a line
"""


def mounts(directory: Path, text: str = SYSTEM) -> list[mount_points.Mount]:
    table = directory / "mountinfo"
    table.write_text(text)
    return mount_points.all_mounts(table)


def boundary(directory: Path, path: str, text: str = SYSTEM) -> list[str]:
    return [str(mount.path) for mount in mount_points.boundary(Path(path), mounts(directory, text))]


def test_the_system_ends_where_others_are_mounted_but_not_within_those(tmp_path: Path) -> None:
    found = boundary(tmp_path, "/")
    assert found == ["/data", "/dev", "/home", "/mnt/nas", "/proc", "/run/user/7", "/sys"]


def test_a_directory_ends_at_what_is_mounted_below_it(tmp_path: Path) -> None:
    assert boundary(tmp_path, "/home") == ["/home/a b\\c"]
    assert boundary(tmp_path, "/mnt") == ["/mnt/nas"]
    assert boundary(tmp_path, "/mnt/nas") == []
    assert boundary(tmp_path, "/mnt/na") == []
    assert boundary(tmp_path, "/etc") == []


def test_a_mount_that_another_one_covers_is_none(tmp_path: Path) -> None:
    text = """
27 1 253:1 / / rw - ext4 /dev/vda1 rw
28 27 253:2 / /srv/data rw - ext4 /dev/vdb rw
29 27 253:3 / /srv rw - ext4 /dev/vdc rw
30 29 253:4 / /srv/data/inner rw - ext4 /dev/vdd rw
"""
    assert boundary(tmp_path, "/", text) == ["/srv"]
    assert boundary(tmp_path, "/srv", text) == ["/srv/data/inner"]


def test_a_root_that_is_mounted_over_the_first_one_counts(tmp_path: Path) -> None:
    text = """
1 1 0:2 / / rw - rootfs rootfs rw
20 1 0:50 / /old rw - tmpfs tmpfs rw
27 1 253:1 / / rw - ext4 /dev/vda1 rw
28 27 253:2 / /home rw - ext4 /dev/vdb rw
"""
    assert boundary(tmp_path, "/", text) == ["/home"]


def test_without_the_root_in_the_table_all_that_is_below_counts(tmp_path: Path) -> None:
    text = "40 39 0:21 / /proc rw - proc proc rw\n41 40 0:22 / /proc/x rw - tmpfs tmpfs rw\n"
    assert boundary(tmp_path, "/", text) == ["/proc"]


def test_mounts_are_told_apart(tmp_path: Path) -> None:
    found = {str(mount.path): mount for mount in mounts(tmp_path)}
    assert len(found) == 10
    assert found["/proc"].is_of_the_kernel
    assert not found["/home"].is_of_the_kernel
    assert {path for path, mount in found.items() if mount.may_hang} == {
        *("/mnt/nas", "/run/user/7", "/proc/sys/fs/binfmt_misc")
    }


def test_a_table_that_is_not_there_has_no_mounts(tmp_path: Path) -> None:
    assert mount_points.all_mounts(tmp_path / "nothing") == []


HARDENED = r"""
27 1 253:1 / / ro,relatime - ext4 /dev/vda1 rw
28 27 253:1 /home /home ro - ext4 /dev/vda1 rw
29 28 253:2 / /home/alice ro - xfs /dev/vdb rw
30 27 253:1 /var/lib/turku-agent /var/lib/turku-agent rw - ext4 /dev/vda1 rw
31 28 253:1 /home/bob /home/bob rw - ext4 /dev/vda1 rw
32 27 253:1 /home/bob /srv/bob rw - ext4 /dev/vda1 rw
33 27 253:3 /srv/own /srv/own rw - ext4 /dev/vdc rw
34 27 0:21 / /proc rw - proc proc rw
35 34 0:21 /sys /proc/sys ro - proc proc rw
"""


def test_a_mount_of_a_hardened_unit_onto_itself_is_the_same_file_system(tmp_path: Path) -> None:
    assert boundary(tmp_path, "/", HARDENED) == ["/home/alice", "/proc", "/srv/bob", "/srv/own"]
    assert boundary(tmp_path, "/home", HARDENED) == ["/home/alice"]
    assert boundary(tmp_path, "/home/bob", HARDENED) == []


def test_a_subvolume_that_is_mounted_is_another_file_system(tmp_path: Path) -> None:
    text = """
27 1 0:25 /@ / rw - btrfs /dev/vda1 rw,subvol=/@
28 27 0:25 /@home /home rw - btrfs /dev/vda1 rw,subvol=/@home
29 27 0:25 /@/etc /etc ro - btrfs /dev/vda1 rw,subvol=/@
"""
    assert boundary(tmp_path, "/", text) == ["/home"]
