"""The step that enables and starts units of a program."""

from collections.abc import Sequence
from dataclasses import dataclass

from turku.core.setup import services
from turku.core.setup.host import Host
from turku.core.setup.record import Kind, Made, Record, Reload
from turku.core.setup.step import DONE, Finding, State, Step


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
