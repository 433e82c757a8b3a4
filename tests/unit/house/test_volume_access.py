"""Whatever lies on a volume is reached through ``storage/fs/``: nothing else in the storage opens or looks by path.

A path on a volume may lead anywhere: a machine, another user or an earlier fault may have put a link there. What never
touches what is below a volume is in a table here, each with its reason.
"""

import pytest
from tests.support.markdown import REPOSITORY
from tests.support.volume_access import accesses

STORAGE = REPOSITORY / "src" / "turku" / "storage"
OF_PATHS = "fs"
"""The directory of those that may."""
_VAR = "lies in var_dir, which is the storage's own"
_KEYS = "the file that sshd reads; it belongs to the user that machines log in as"
_PROC = "the kernel's own files of processes"
_SYSTEM = "directories and programs of the system, which bubblewrap shows"
_SCRATCH = "the drill's own new directory, in drill_directory"
_LINKS = "the links in var_dir to machines' directories; nothing behind them is looked at"
_CHOSEN = "a volume's own directory and those above it, before anything of a machine is there"
ALLOWED: dict[tuple[str, str], str] = {
    ("registration/acting_user.py", "only_root_can_change"): "the directories of programs that root runs",
    ("registration/known_machines.py", "remember"): _VAR,
    ("registration/known_machines.py", "_recorded"): _VAR,
    ("registration/admitted_keys.py", "write"): _VAR,
    ("registration/coordinator.py", "Coordinator.learn_keys"): _VAR,
    ("registration/admitted_keys.py", "line_of"): _VAR,
    ("registration/authorized_keys.py", "write"): _KEYS,
    ("registration/authorized_keys.py", "_make_parent"): _KEYS,
    ("registration/authorized_keys.py", "_read"): _KEYS,
    ("registration/authorized_keys.py", "_is_as_sshd_wants"): _KEYS,
    ("catalog/database.py", "_open"): "SQLite opens by path: refuse_planted made sure that nobody else leads it astray",
    ("catalog/scan.py", "SnapshotReader.entries"): "an entry of an open directory, its link not followed",
    ("rsync/change_log.py", "ChangeLog.__init__"): "a file without a name, in the system's temporary directory",
    ("config/model.py", "SshConfig.host_keys"): "sshd's public keys",
    ("config/model.py", "_first_line"): "sshd's public keys",
    ("config/loading.py", "_generate_identity"): _VAR,
    ("config/loading.py", "remember_name"): _VAR,
    ("config/loading.py", "write_identity"): _VAR,
    ("config/loading.py", "_repair_identity"): _VAR,
    ("config/model.py", "_volumes"): "a volume's own path, resolved once and for all as its operator wrote it",
    ("integrity/drill.py", "scratch"): _SCRATCH,
    ("integrity/drill.py", "remove_leftovers"): _SCRATCH,
    ("integrity/drill.py", "_DrillRun.run"): _SCRATCH,
    ("integrity/drill.py", "_DrillRun._lacks_room"): _SCRATCH,
    ("integrity/drill.py", "_DrillRun._restore"): _SCRATCH,
    ("integrity/drill.py", "_DrillRun._check"): "the operator's check program",
    ("registration/faults.py", "note_containment"): _VAR,
    ("registration/faults.py", "_containment_fault"): _VAR,
    ("registration/key_removal.py", "Removal.held"): _VAR,
    ("registration/key_removal.py", "_read"): _VAR,
    ("containment/limits.py", "_read_usage"): _VAR,
    ("containment/limits.py", "_write_usage"): _VAR,
    ("containment/watchdog.py", "usage"): _PROC,
    ("containment/watchdog.py", "descendants"): _PROC,
    ("disk/machine_links.py", "update_links"): _LINKS,
    ("disk/machine_links.py", "remove_link"): _LINKS,
    ("registration/software.py", "versions"): _VAR,
    ("disk/former_machines.py", "read"): _VAR,
    ("disk/former_machines.py", "_write"): _VAR,
    ("disk/machine_links.py", "_recorded_names"): _VAR,
    ("disk/machine_links.py", "_record_names"): _VAR,
    ("disk/machine_links.py", "_read_name_links"): _LINKS,
    ("disk/machine_links.py", "_linked_uuid"): _LINKS,
    ("disk/machine_links.py", "_point"): _LINKS,
    ("disk/dirty_flag.py", "unclean_shutdown"): "the kernel's boot_id",
    ("disk/dirty_flag.py", "writing"): "the kernel's boot_id",
    ("commands/adopt.py", "adopt"): "another program's trees, resolved once as the operator wrote them",
    ("commands/protection/host.py", "_has_user_attributes"): "a volume's own directory",
    ("commands/protection/host.py", "_private_files"): _VAR,
    ("commands/protection/sshd.py", "facts"): "a program of the system",
    ("registration/update_config.py", "_last_run"): _VAR,
    ("registration/update_config.py", "_recorded"): _VAR,
    ("registration/update_config.py", "_update"): _VAR,
    ("containment/bubblewrap.py", "wrap"): _SYSTEM,
    ("containment/bubblewrap.py", "_probe"): _SYSTEM,
    ("containment/sandbox.py", "rsync_programs"): _SYSTEM,
    ("containment/capabilities.py", "_has_capability"): _PROC,
    (
        "containment/sandbox.py",
        "_directories_in_system",
    ): "volumes' and the storage's own directories, to be hidden in a system directory",
    ("registration/secret_rotation.py", "resume"): _VAR,
    ("registration/secret_rotation.py", "_require_ours"): _VAR,
    ("registration/secret_rotation.py", "_begin"): _VAR,
    ("registration/secret_rotation.py", "_finish"): "the configuration",
    ("registration/secret_rotation.py", "_drop"): _VAR,
    ("integrity/source_comparison.py", "request"): _VAR,
    ("integrity/source_comparison.py", "percent"): _VAR,
    ("integrity/source_comparison.py", "after_backup"): _VAR,
    ("containment/seccomp.py", "_by_library"): "a file without a name, in the system's temporary directory",
    ("session/tunnel_ownership.py", "_session_sshd"): _PROC,
    ("session/tunnel_ownership.py", "_socket_inodes"): _PROC,
    ("disk/volume_marks.py", "_remembered"): _VAR,
    ("disk/volume_marks.py", "_remember"): _VAR,
    ("disk/volume_marks.py", "_linked_machines"): _LINKS,
    ("disk/volume_marks.py", "unmounted_point"): "the system's table of file systems",
    ("commands/host_setup.py", "_require_consent"): _VAR,
    ("setup/snippets.py", "try_sudoers"): "a file in the system's temporary directory, for visudo",
    ("setup/snippets.py", "_sshd"): "sshd's own directory",
    ("setup/plan.py", "_volume_step.make"): _CHOSEN,
    ("setup/volume_choice.py", "is_missing"): _CHOSEN,
    ("setup/volume_choice.py", "require_usable"): _CHOSEN,
    ("setup/volume_choice.py", "_existing"): _CHOSEN,
    ("disk/volumes.py", "existing_directory"): _LINKS,
    ("disk/volumes.py", "link_directory"): _LINKS,
}
MODULES = sorted(
    str(path.relative_to(STORAGE)) for path in STORAGE.rglob("*.py") if path.relative_to(STORAGE).parts[0] != OF_PATHS
)


@pytest.mark.parametrize("module", MODULES)
def test_a_volume_is_reached_through_open_directories_alone(module: str) -> None:
    found = accesses((STORAGE / module).read_text())
    assert [str(each) for each in found if (module, each.function) not in ALLOWED] == []


@pytest.mark.parametrize("module", sorted({module for module, _function in ALLOWED}))
def test_the_table_names_nothing_that_is_gone(module: str) -> None:
    found = {each.function for each in accesses((STORAGE / module).read_text())}
    assert {function for name, function in ALLOWED if name == module} <= found


# --- the reader itself


@pytest.mark.parametrize(
    "source",
    [
        "def look(place): return list(place.snapshots_dir.iterdir())",
        "def look(tree): return os.lstat(tree)",
        "def look(tree): return os.stat(tree / 'file').st_size",
        "def look(tree, parent): return os.stat(tree, dir_fd=parent)",
        "def look(tree, parent): os.utime(tree, dir_fd=parent)",
        "def look(tree, parent): os.link(tree, 'x', src_dir_fd=parent, follow_symlinks=False)",
        "def look(path): return open(path).read()",
        "def look(path): return io.open(path)",
        "def look(path): return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)",
        "def look(path: Path): return os.scandir(path)",
        "def look(path): return path.is_dir() and path",
        "def look(path): return path.exists()",
        "def look(path, other): path.replace(other)",
        "def look(path, other): path.rename(other)",
        "def look(path, other): os.rename(path, other)",
        "def look(path): return path.resolve()",
        "def look(path): return path.read_text()",
        "def look(path): return path.stat()",
        "def look(path): return path.open('rb')",
        "def look(path): return os.path.isdir(path)",
        "def look(path): shutil.rmtree(path)",
        "def look(path): return glob.glob(path)",
        "def look(path): return sqlite3.connect(path)",
        "def look(path): tempfile.mkdtemp(dir=path)",
        "def look(path): durable.write_json(path, {})",
        "def look(path): durable.rename(path, path)",
        "def look(path): return durable.read_regular_file(path, limit_bytes=1)",
        "def look(place):\n    with lock.exclusive(place.machine_dir, 'etc'):\n        pass",
        "def look(place):\n    with lock.exclusive_directory(place.snapshots_dir):\n        pass",
        "def look(paths): return list(map(os.unlink, paths))",
        "def look(paths): return list(map(Path.is_file, paths))",
        "from os import unlink",
        "from os.path import exists",
        "import os as system",
        "from shutil import rmtree",
        # What may be a path and not a descriptor is none.
        "def look(path, directory: int):\n    directory = path\n    return os.scandir(directory)",
        "def look(path: Path | int): return os.stat(path)",
        "class Place:\n    def look(self): return self.snapshots_dir.glob('*')",
    ],
)
def test_an_access_by_path_is_found(source: str) -> None:
    [found] = accesses(source)
    assert found.line


@pytest.mark.parametrize(
    "source",
    [
        "from turku.storage.fs import tree as fs\ndef look(path): return fs.exists(path) and fs.is_directory(path)",
        "from turku.storage.fs import tree as fs\ndef look(path, other): fs.rename(path, other)",
        "def look(name, directory: int): return os.stat(name, dir_fd=directory, follow_symlinks=False)",
        "def look(name, parent: int): return os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)",
        "def look(directory: int): return os.scandir(directory)",
        "def look(tree):\n    with fs.opened(tree) as directory:\n        return os.listdir(directory)",
        "def look(tree, path): return os.listdir(tree.directory(path))",
        "def look(a, b, x, y): os.link(a, b, src_dir_fd=x, dst_dir_fd=y, follow_symlinks=False)",
        "def look(configuration):\n    with lock.exclusive(configuration.lock_dir, 'gc'):\n        pass",
        "def look(text): return text.replace('a', 'b')",
        "def look(moment): return moment.replace(microsecond=0)",
        "def look(match): return match.group()",
        "def look(directory: int): durable.write_bytes_in(directory, 'name', b'')",
    ],
)
def test_access_by_open_directories_is_not(source: str) -> None:
    assert accesses(source) == []
