"""The steps of the demo, in order, with the words of its output."""

import filecmp
import shlex
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.secret import generate_secret
from turku.core.units import size
from turku.demo import programs
from turku.demo import tree as trees
from turku.demo.narrator import Narrator
from turku.demo.private_coordinator import PrivateCoordinator
from turku.demo.private_machine import PrivateMachine
from turku.demo.private_sshd import PrivateSshd
from turku.demo.private_storage import PrivateStorage
from turku.errors import CommandFailed, TurkuError

SOURCE = "tree"
ADMINISTRATOR = "demo"
_KEPT_PING_SECONDS = 15.0


@dataclass(frozen=True)
class Stage:
    """The three running programs after their registration."""

    directory: Path
    coordinator: PrivateCoordinator
    storage: PrivateStorage
    machine: PrivateMachine

    def snapshots(self) -> list[Path]:
        """Return the snapshots on the storage, oldest first."""
        return self.storage.snapshots(self.machine.uuid, SOURCE)


class Story:
    """The steps of the demo. ``run`` performs them in order, and ends every program that it started."""

    def __init__(self, directory: Path, narrator: Narrator, clock: Clock = SYSTEM_CLOCK) -> None:
        self._directory = directory
        self._narrator = narrator
        self._clock = clock

    def run(self, path: Path, *, keep: bool) -> None:
        """Perform all steps. With ``keep``, stay until interrupted. Raises TurkuError if a step fails."""
        begun = self._clock.monotonic_seconds()
        tree = self._copy(path)
        with ExitStack() as stack:
            stage = self._set_up(stack)
            first = self._back_up_first(stage, tree)
            kept, changes = self._change(tree)
            self._back_up_again(stage, tree, first)
            self._restore(stage, first, changes.changed, kept)
            self._narrator.end(self._clock.monotonic_seconds() - begun)
            self._where_things_lie(stage, tree, kept=keep)
            if keep:
                self._keep(stage)

    def _copy(self, path: Path) -> trees.TreeCopy:
        with self._narrator.step(f"Copy {path}, because the demo changes files and yours must stay as they are") as say:
            tree = trees.copy(path, self._directory / "machine" / "files")
            say(f"{len(tree.files):,} files, {size(tree.size_bytes)}, now in {tree.path}")
            if tree.is_partial:
                say(
                    f"{path} is larger; the demo takes at most {trees.FILES_LIMIT:,} files "
                    f"and {size(trees.SIZE_LIMIT_BYTES)} of it"
                )
            if tree.unreadable:
                say(f"left out, because this user cannot read them: {tree.unreadable:,} files or directories")
            if tree.special:
                say(f"skipped, because they are not files: {tree.special:,} sockets, pipes or devices")
        return tree

    def _set_up(self, stack: ExitStack) -> Stage:
        step = self._narrator.step
        with step("Start a coordinator (turku-api)") as say:
            coordinator = stack.enter_context(PrivateCoordinator(self._directory / "coordinator"))
            say(f"it listens on {coordinator.url} and keeps its data in SQLite")
        with step("Start an sshd that only the machine's key may enter") as say:
            sshd = stack.enter_context(
                PrivateSshd(
                    self._directory / "sshd",
                    authorized_keys=self._directory / "sshd" / "authorized_keys",
                    extra_lines=("AllowTcpForwarding remote", "X11Forwarding no", "AllowAgentForwarding no"),
                )
            )
            say(f"it listens on 127.0.0.1 port {sshd.port}")
        with step("Register a storage (turku-storage-update-config)") as say:
            storage = PrivateStorage(
                self._directory / "storage",
                name="demo-storage",
                api_url=coordinator.url,
                api_auth=coordinator.create_auth("storage_reg", name="demo storages"),
                sshd=sshd,
            )
            storage.update_config()
            say("it told the coordinator its free space and its host key")
            if storage.lacks_sandbox is not None:
                say(f"its rsync runs without a sandbox ({storage.lacks_sandbox}); a real storage insists on one")
        with step("Register this machine (turku-update-config)") as say:
            machine = PrivateMachine(
                self._directory / "machine",
                unit_name="demo-machine",
                api_url=coordinator.url,
                api_auth=coordinator.create_auth("machine_reg", name="demo machines"),
            )
            machine.declare({SOURCE: {"path": str(self._directory / "machine" / "files"), "frequency": "daily"}})
            machine.update_config()
            storage.update_config()
            say(f"it is machine {machine.uuid}; the storage now admits its key, for backups and nothing else")
        return Stage(self._directory, coordinator, storage, machine)

    def _back_up_first(self, stage: Stage, tree: trees.TreeCopy) -> Path:
        with self._narrator.step("Back up for the first time (turku-agent-ping)") as say:
            stage.machine.ping()
            snapshots = stage.snapshots()
            if len(snapshots) != 1:
                raise _no_snapshot(stage)
            say(f"all {len(tree.files):,} files went through an SSH tunnel that the machine opened to the storage")
            say(f"snapshot {snapshots[0].name}")
        return snapshots[0]

    def _change(self, tree: trees.TreeCopy) -> tuple[Path, trees.TreeChanges]:
        with self._narrator.step("Change the copy, as a day of work would") as say:
            before = trees.text_file(tree)
            kept = self._directory / "machine" / "kept aside"
            shutil.copy2(tree.path / before, kept)
            changes = trees.change(tree, before)
            say(f"changed {changes.changed}")
            say(f"added   {changes.added}")
            if changes.renamed:
                say(f"renamed {changes.renamed[0]} to {changes.renamed[1].name}")
            if changes.deleted:
                say(f"deleted {changes.deleted}")
        return kept, changes

    def _back_up_again(self, stage: Stage, tree: trees.TreeCopy, first: Path) -> None:
        with self._narrator.step("Back up again: tomorrow's backup, ordered now (turku-api back-up-now)") as say:
            stage.coordinator.manage("back-up-now", stage.machine.uuid)
            stage.machine.ping()
            snapshots = stage.snapshots()
            if len(snapshots) != 2 or first not in snapshots:
                raise _no_snapshot(stage)
            shared = trees.sharing(tree.path, snapshots[-1], first)
            say(f"snapshot {snapshots[-1].name}")
            say(
                f"{shared.shared_files:,} of its {shared.files:,} files are stored once for both snapshots; "
                f"only {size(shared.own_bytes)} are new"
            )

    def _restore(self, stage: Stage, first: Path, name: Path, kept: Path) -> None:
        with self._narrator.step("Restore the changed file as it was (turku-agent restore)") as say:
            machine = stage.machine
            programs.run(
                *("turku-agent", "restore", "--config-dir", machine.config_dir, "--snapshot", first.name),
                *("--to", machine.restore_path, "--yes", SOURCE, f"./{name}"),
            )
            restored = machine.restore_path / name
            if not filecmp.cmp(restored, kept, shallow=False):
                raise CommandFailed(f"{restored} is not what was backed up", hint=f"compare it with {kept}")
            say(f"{name} of the first snapshot, to {machine.restore_path}")
            say(f"compared byte by byte with the file before its change: identical, {size(kept.stat().st_size)}")

    def _where_things_lie(self, stage: Stage, tree: trees.TreeCopy, *, kept: bool) -> None:
        self._narrator.places(
            {
                "the machine's files": tree.path,
                "the snapshots": stage.snapshots()[-1].parent,
                "the restored file": stage.machine.restore_path,
                "machine's configuration": stage.machine.config_dir,
                "storage's configuration": stage.storage.config_dir,
                "storage's log": stage.storage.log_file,
                "coordinator's database": stage.coordinator.state_dir,
            },
            kept=kept,
        )

    def _keep(self, stage: Stage) -> None:
        password = generate_secret(16)
        stage.coordinator.create_administrator(ADMINISTRATOR, password)
        machine = ("--config-dir", str(stage.machine.config_dir))
        storage = ("--config-dir", str(stage.storage.config_dir))
        state_dir = shlex.quote(f"TURKU_STATE_DIR={stage.coordinator.state_dir}")
        self._narrator.invite(
            stage.coordinator.admin_url,
            ADMINISTRATOR,
            password,
            every_seconds=_KEPT_PING_SECONDS,
            commands={
                "what this machine backs up": programs.command_line("turku-agent", "check", *machine),
                "what snapshots there are": programs.command_line("turku-agent", "snapshots", *machine, SOURCE),
                "restore all of the newest": programs.command_line("turku-agent", "restore", *machine, SOURCE),
                "what the storage keeps, and until when": programs.command_line(
                    "turku-storage", "retention", "--dry-run", *storage
                ),
                "the health of the fleet": f"{state_dir} {programs.command_line('turku-api', 'health', '--verbose')}",
            },
        )
        try:
            while True:
                self._clock.sleep(_KEPT_PING_SECONDS)
                self._play_timers(stage)
        except KeyboardInterrupt:
            self._narrator.note("Ending.")

    def _play_timers(self, stage: Stage) -> None:
        before = stage.snapshots()
        try:
            stage.storage.update_config()
            stage.machine.ping()
        except TurkuError as error:
            # Somebody may have switched machine or storage off in the admin site, to try it.
            self._narrator.note(f"{error.message}: {error.details}")
        for snapshot in stage.snapshots():
            if snapshot not in before:
                self._narrator.note(f"Backed up: snapshot {snapshot.name}")


def _no_snapshot(stage: Stage) -> CommandFailed:
    try:
        log = stage.storage.log_file.read_text(errors="replace").splitlines()
    except OSError:
        log = []
    return CommandFailed("the backup ended without a snapshot", details="\n".join(log[-25:]))
