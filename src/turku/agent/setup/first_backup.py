"""The first backup of a machine that was just set up, made as its timer makes every other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC

from turku.agent import checkin, coordinator_status, ping
from turku.agent.config.model import AgentConfig
from turku.agent.state.session_record import ADMISSION_GRACE
from turku.agent.tunnel import probe, trusted_storages
from turku.agent.tunnel.trusted_storages import checked_address
from turku.core import command
from turku.core.cli.listing import Say
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.log import one_line
from turku.core.setup.host import Host
from turku.errors import BackupFailed, LockHeld, NotAdmitted, TurkuError
from turku.protocol.machine.agent_status_messages import AgentStatusAnswer
from turku.protocol.messages import StorageAddress

_PROGRAM = "turku-agent-ping"
UNIT = f"{_PROGRAM}.service"
_PAUSE_SECONDS = 5.0
_LAST_LINES_SECONDS = 1.0
_LONGEST_BACKUP_SECONDS = 7 * 24 * 3600.0
_TIMER_GOES_ON = "the timer goes on asking every 5 minutes; turku-agent status shows the state"


@dataclass(frozen=True)
class FirstBackup:
    """The waiting for a storage, and the backup. ``say`` tells a person what goes on."""

    agent: AgentConfig
    host: Host
    say: Say
    clock: Clock = SYSTEM_CLOCK

    def make(self) -> bool:
        """Wait until the storage lets this machine in, back up what is due, and say the result.

        Return True where every source is backed up, and where nothing can be backed up yet through no fault of this
        machine. Raises the errors of the coordinator.
        """
        storage = self._storage()
        if storage is None:
            self.say(f"No storage is assigned to this machine yet: {_TIMER_GOES_ON}.")
            return True
        if not self._wait_until_admitted(storage):
            return False
        self._back_up()
        return self._conclude()

    def _storage(self) -> StorageAddress | None:
        status = coordinator_status.ask(self.agent)
        if status is not None:
            return status.answer.storage
        # A coordinator of the existing system.
        found = checkin.by_storage(checkin.active_sources(self.agent))
        return found[0][0] if found else None

    def _wait_until_admitted(self, storage: StorageAddress) -> bool:
        name = one_line(storage.name)
        deadline = self.clock.monotonic_seconds() + ADMISSION_GRACE.total_seconds()
        has_said = False
        while True:
            try:
                probe.log_in(self.agent, trusted_storages.verdict(self.agent, checked_address(storage)))
            except NotAdmitted as error:
                if self.clock.monotonic_seconds() > deadline:
                    self.say(f"{error.message}: {_TIMER_GOES_ON}.")
                    self.say(f"  hint: {error.hint}")
                    return False
                if not has_said:
                    self.say(f"waiting for storage {name} to admit this machine (some minutes at most)")
                    has_said = True
                self.clock.sleep(_PAUSE_SECONDS)
            except TurkuError as error:
                self.say(f"{error.message}: {_TIMER_GOES_ON}.")
                for line in error.details.splitlines():
                    self.say(f"  | {one_line(line)}")
                if error.hint:
                    self.say(f"  hint: {error.hint}")
                return False
            else:
                return True

    def _back_up(self) -> None:
        if self.host.has_systemd:
            # As the timer does, with the unit's user and limits.
            with self._followed_journal(), command.start(["systemctl", "start", UNIT], on_line=self.say) as start:
                start.wait(_LONGEST_BACKUP_SECONDS)
            return
        try:
            ping.ping(self.agent)
        except BackupFailed:
            # Each failure was said, and the coordinator's answer is shown next.
            pass
        except LockHeld:
            self.say("another run of turku-agent-ping makes the backup now")

    @contextmanager
    def _followed_journal(self) -> Iterator[None]:
        program = self.host.find_program("journalctl")
        if program is None:
            self.say("the backup runs, and is not shown without journalctl")
            yield
            return
        with command.start(
            [program, "--follow", "--lines=0", "--output=cat", f"--unit={UNIT}", f"--identifier={_PROGRAM}"],
            on_line=self.say,
        ):
            yield
            self.clock.sleep(_LAST_LINES_SECONDS)

    def _conclude(self) -> bool:
        status = coordinator_status.ask(self.agent)
        if status is None:
            self.say("The session with the storage is over. The coordinator shows what was backed up.")
            return True
        backed_up, left = _sorted(status.answer)
        zone = self.clock.now().astimezone().tzinfo or UTC
        for name in left:
            line = coordinator_status.last_line(status.answer.sources[name], zone, now=status.answer.now)
            self.say(f"source {one_line(name)}: {line}")
        if left:
            self.say(f"Not everything is backed up yet: {_TIMER_GOES_ON}.")
        if backed_up:
            shown = ", ".join(map(one_line, backed_up))
            self.say(f"{shown}: backed up; restore with: turku-agent restore {one_line(backed_up[0])}")
        has_failed = any(status.answer.sources[name].failed for name in left)
        return bool(backed_up) and not has_failed


def _sorted(answer: AgentStatusAnswer) -> tuple[list[str], list[str]]:
    """Return the sources in force that are backed up, and the others."""
    in_force = {name: each for name, each in answer.sources.items() if each.is_declared and each.is_active}
    backed_up = [name for name, each in in_force.items() if each.succeeded is not None and each.failed is None]
    return backed_up, [name for name in in_force if name not in backed_up]
