"""The steps by which the programs run: units that are installed, enabled and started, or a file of cron."""

from collections.abc import Sequence
from dataclasses import dataclass

from turku.core.setup import host_files, services
from turku.core.setup.host import Host
from turku.core.setup.record import Kind, Made, Record, Reload
from turku.core.setup.step import DONE, Finding, State, Step, host_file_step


@dataclass(frozen=True)
class UnitsStep(Step):
    """Services and timers of systemd, enabled and running. Only for a host on which systemd is running."""

    units: Sequence[str]

    @property
    def title(self) -> str:  # type: ignore[override]  # computed, not stored
        return f"enable and start {', '.join(self.units)}"

    def find(self, host: Host, record: Record) -> Finding:  # noqa: ARG002  (the service manager knows)
        missing = [unit for unit in self.units if not services.is_running(host, unit)]
        if not missing:
            return DONE
        return Finding(State.NEEDED, "" if len(missing) == len(self.units) else f"not yet: {', '.join(missing)}")

    def apply(self, host: Host, record: Record) -> None:
        stale = {unit for unit in self.units if services.has_newer_file(host, unit)}
        services.reload_services(host, [Reload.SYSTEMD])
        for unit in self.units:
            if not services.is_running(host, unit):
                record.add(Made(Kind.UNIT, unit))
                host.run(["systemctl", "enable", "--now", unit])
            elif unit in stale:
                host.run(["systemctl", "restart", unit])


def periodic_steps(package: str, host: Host, program: str, *, services: Sequence[str] = ()) -> list[Step]:
    """Return the steps that run the programs of a package at their times, and its services all the time.

    Where systemd is not running, cron runs what has a time.
    """
    kind, purpose = ("systemd", "") if host.has_systemd else ("cron", "systemd is not running here")
    if not host.has_systemd and not host.path(host_files.PLACES["cron"]).is_dir():
        return []
    found = (host_file_step(file, host, program, purpose=purpose) for file in host_files.all_of(package, kind))
    files: list[Step] = [step for step in found if step is not None]
    timers = [f"{name}.timer" for name in host_files.timers(package)]
    return [*files, UnitsStep([*services, *timers])] if host.has_systemd else files
