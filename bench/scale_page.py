"""Puts the figures of a simulated fleet into docs/scale.md, and carries them on to a million machines.

`.venv/bin/python -m bench.scale_page` makes the tables between the page's markers anew from bench/figures/fleet.json
(`bench.fleet`), fleet-postgresql.json (the same on PostgreSQL, for what only it counts) and row_sizes.json
(`bench.row_sizes`), without measuring. Everything that is assumed beside them stands in ASSUMED.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench import fleet_mix

REPOSITORY = Path(__file__).resolve().parent.parent
FIGURES = REPOSITORY / "bench" / "figures"
PAGE = REPOSITORY / "docs" / "scale.md"
MILLION = 1_000_000
DAY = 86_400
ASSUMED = {
    "ms of the HTTP server for each call": 0.5,
    "bytes of a call on the network, both ways, TLS included": 4000,
    "bytes of a machine in a storage's list": 400,
    "slots of a storage": 32,
    "usable TB of a storage": 100,
    "space of the history, as a share of the data": 1.6,
    "share of the data that changes in a day": 0.02,
    "share of a processor that a coordinator may use at the busiest hour": 0.6,
    "days that records of runs are kept": 90,
    "audit entries of a machine in a year, registration included": 12,
}
_CALLS = {
    "agent_ping_checkin": "checkin, nothing due",
    "agent_ping_checkin, due": "checkin, something due",
    "storage_ping_checkin": "a session begins",
    "storage_heartbeat": "heartbeat of a session",
    "storage_ping_source_update": "report of a backup",
    "update_config": "a machine's configuration",
    "storage_update_config": "a storage's state, its machines in the answer",
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, right: int = 1) -> str:
    """Return a Markdown table. The columns from ``right`` on are figures. `` x `` becomes the sign of
    multiplication."""
    names = list(head)
    line = ["---" if number < right else "---:" for number in range(len(names))]
    text = "\n".join("| " + " | ".join(row) + " |" for row in (names, line, *map(list, rows)))
    return text.replace(" x ", " \N{MULTIPLICATION SIGN} ")


class Page:
    """The tables, by the names of their markers."""

    def __init__(self, fleet: dict[str, Any], on_postgresql: dict[str, Any], sizes: dict[str, Any]) -> None:
        self.fleet, self.week = fleet, fleet["week"]
        self.postgresql = on_postgresql["week"]
        self.sampled = on_postgresql["sampled"]
        self.sizes = sizes

    def processor_ms(self, call: str) -> float:
        """Of the coordinator's process, without its HTTP server, on PostgreSQL."""
        week = self.postgresql
        count = week["calls_per_machine_day"].get(call, 0) * week["machines"]
        return 1000 * week["processor_seconds_per_day"].get(call, 0.0) / count if count else 0.0

    def per_machine_day(self, call: str) -> float:
        return float(self.week["calls_per_machine_day"].get(call, 0.0))

    def load(self) -> str:
        week = self.week
        rows = [
            [
                name,
                f"{week[key]['mean']:,.1f}",
                f"{max(week[key].get('peak', 0), week[key].get('peak_minute', 0)):,.1f}",
            ]
            for name, key in (
                ("checkins a second (peak: the busiest minute)", "checkins_per_second"),
                ("backups begun an hour", "starts_per_hour"),
                ("backups running", "running"),
                ("sources due and not running", "waiting"),
                ("of those, for over ten minutes", "waiting_over_ten_minutes"),
            )
        ]
        return table(["", "mean", "peak"], rows)

    def latency(self) -> str:
        rows = [
            [name, f"{found['count']:,}"]
            + [f"{found[f'{key}_seconds'] / 60:.1f} min" for key in ("median", "p99", "worst")]
            for name, found in self.week["due_to_start"].items()
        ]
        return table(["from due to start", "runs", "median", "p99", "worst"], rows)

    def drain(self) -> str:
        rows = []
        for drain in self.fleet["drains"]:
            name = "without the coordinator" if drain["kind"] == "coordinator" else "without one storage"
            hours = [f"{value:.1f} h" if value is not None else "not yet" for value in drain["hours"].values()]
            rows.append([name, f"{drain['backlog']:,}", *hours])
        return table(["a day", "due at its end", "half begun after", "90 %", "99 %", "all"], rows)

    def spread(self) -> str:
        rows = [
            [
                f"`{name}`",
                f"{found['bins']:,} of {_span(found['bin_seconds'])}",
                f"{found['mean']:.1f}",
                f"{found['peak_to_mean']:.2f}",
                f"{found['chance_peak_to_mean']:.2f}",
                f"{found['chi_square'] / found['degrees_of_freedom']:.2f}",
                f"{found['probability']:.2f}",
            ]
            for name, found in self.fleet["spreads"].items()
        ]
        head = ["schedule", "bins", "mean", "peak/mean", "peak/mean by chance", "chi-square/df", "probability"]
        return table(head, rows)

    def costs(self) -> str:
        rows = []
        whole = database = self.database_ms_per_machine_day()
        for call, words in _CALLS.items():
            milliseconds, count = self.processor_ms(call), self.per_machine_day(call)
            if call == "storage_update_config":
                rows.append([f"{words} (288 a day for each storage)", "", f"{milliseconds:.1f} ms", ""])
                continue
            whole += count * milliseconds
            rows.append([words, f"{count:.2f}", f"{milliseconds:.1f} ms", f"{count * milliseconds:.0f} ms"])
        rows.append(["the database server, all calls", "", "", f"{database:.0f} ms"])
        rows.append(["together", "", "", f"{whole:.0f} ms"])
        return table(["call", "per machine and day", "processor time each", "per machine and day"], rows)

    def database_ms_per_machine_day(self) -> float:
        week = self.postgresql
        return float(1000 * week["processor_seconds_per_day"]["database server"] / week["machines"])

    def rows_written(self) -> str:
        written = dict(self.postgresql["rows_written_per_machine_day"])
        written["fleet_machine"] = written.get("fleet_machine", 0) + written.pop("of calls counted and not sent")
        # A storage's own row is written 288 times a day and at each of its calls. There are few of them.
        written.pop("fleet_storage", None)
        rows = [
            [f"`{name}`", f"{count:.2f}"]
            for name, count in sorted(written.items(), key=lambda item: -item[1])
            if count >= 0.01
        ]
        return table(["table", "rows written per machine and day"], rows)

    def bytes_per_row(self) -> str:
        rows = [
            [
                f"`{name}`",
                f"{found['rows']:,}",
                f"{found['table_bytes_per_row']:.0f}",
                f"{found['index_bytes_per_row']:.0f}",
                f"{found['table_bytes_per_row'] + found['index_bytes_per_row']:.0f}",
            ]
            for name, found in self.sizes.items()
        ]
        return table(["table", "rows measured", "bytes of the table", "bytes of its indexes", "together"], rows)

    def bytes_of(self, name: str) -> float:
        found = self.sizes[name]
        return float(found["table_bytes_per_row"] + found["index_bytes_per_row"])

    def million_rows(self) -> str:
        sources = MILLION * self.week["sources"] / self.week["machines"]
        runs = MILLION * self.week["runs_per_machine_day"]
        days = ASSUMED["days that records of runs are kept"]
        audit = MILLION * ASSUMED["audit entries of a machine in a year, registration included"]

        def row(words: str, arithmetic: str, count: float, name: str) -> list[str]:
            size = count * self.bytes_of(name)
            return [words, arithmetic, _short(count), f"{self.bytes_of(name):.0f}", _bytes(size)]

        per_machine = self.week["sources"] / self.week["machines"]
        per_day = self.week["runs_per_machine_day"]
        return table(
            ["what", "arithmetic", "rows", "bytes each", "size"],
            [
                row("machines", "10⁶", MILLION, "fleet_machine"),
                row("sources", f"10⁶ x {per_machine:.2f}", sources, "backups_source"),
                row("runs of a day", f"10⁶ x {per_day:.2f}", runs, "backups_backuprun"),
                row(f"runs of {days:.0f} days", f"{_short(runs)} x {days:.0f}", runs * days, "backups_backuprun"),
                row("runs of a year", f"{_short(runs)} x 365", runs * 365, "backups_backuprun"),
                row("audit entries of a year", "10⁶ x 12", audit, "audit_auditentry"),
            ],
            right=2,
        )

    def million_load(self) -> str:
        week = self.week
        peak = week["starts_per_hour"]["peak"] / week["starts_per_hour"]["mean"]
        steady = week["checkins_per_second"]["peak_minute"] / week["checkins_per_second"]["mean"]
        http = ASSUMED["ms of the HTTP server for each call"]
        rows, busiest, usual, all_calls = [], 0.0, 0.0, 0.0
        for call, words in _CALLS.items():
            if call == "storage_update_config":
                # One a storage every five minutes, whatever the fleet.
                per_second = self.storages() / 300
                milliseconds = self.list_ms()
            else:
                per_second = self.per_machine_day(call) * MILLION / DAY
                milliseconds = self.processor_ms(call)
            factor = 1.0 if call in ("agent_ping_checkin", "storage_update_config", "update_config") else peak
            cores = per_second * (milliseconds + http) / 1000
            usual, busiest, all_calls = usual + cores, busiest + cores * factor, all_calls + per_second
            rows.append(
                [
                    words,
                    f"{per_second:,.0f}",
                    f"{per_second * factor:,.0f}",
                    f"{milliseconds + http:.1f} ms",
                    f"{cores:.1f}",
                ]
            )
        database = self.database_ms_per_machine_day() * MILLION / DAY / 1000
        rows.append(["the database server", "", "", "", f"{database:.1f}"])
        rows.append(["together", f"{all_calls:,.0f}", "", "", f"{usual + database:.1f}"])
        self.notes = {
            "peak": peak,
            "steady": steady,
            "coordinator_cores": usual,
            "coordinator_cores_busiest": busiest,
            "database_cores": database,
        }
        return table(["call", "a second", "in the busiest hour", "processor time each", "processors busy"], rows)

    def list_ms(self) -> float:
        """A storage's list: what it costs for few machines, and 8 microseconds for each further one."""
        return self.processor_ms("storage_update_config") + MILLION / self.storages() * 0.008

    def gib_per_machine(self) -> float:
        return float(fleet_mix.first_fill_gib_mean() * self.week["sources"] / self.week["machines"])

    def storages(self) -> float:
        """Return the number of storages that the data needs."""
        share = ASSUMED["space of the history, as a share of the data"]
        return MILLION * self.gib_per_machine() * share * 1.0737e-3 / ASSUMED["usable TB of a storage"]

    def million_storages(self) -> str:
        week = self.week
        running = week["running"]["peak"] / week["machines"] * MILLION
        mean_running = week["running"]["mean"] / week["machines"] * MILLION
        slots = ASSUMED["slots of a storage"]
        gib = self.gib_per_machine()
        space = self.storages()
        changed = MILLION * gib * ASSUMED["share of the data that changes in a day"] * 8 * 1.0737 / DAY
        machines = MILLION / space
        traffic = self.calls_a_second() * ASSUMED["bytes of a call on the network, both ways, TLS included"] * 8
        listed = machines * ASSUMED["bytes of a machine in a storage's list"]
        return table(
            ["what", "arithmetic", "at a million machines"],
            [
                ["data", f"10⁶ x {gib:.0f} GiB", f"{MILLION * gib / 2**20:,.0f} PiB"],
                [
                    "storages for the space",
                    f"data x {ASSUMED['space of the history, as a share of the data']} / 100 TB",
                    f"{space:,.0f}",
                ],
                [
                    "backups at once, mean",
                    f"{week['running']['mean']:.1f} / {week['machines']:,} x 10⁶",
                    f"{mean_running:,.0f}",
                ],
                [
                    "backups at once, busiest moment",
                    f"{week['running']['peak']:.0f} / {week['machines']:,} x 10⁶",
                    f"{running:,.0f}",
                ],
                ["storages, so that nobody waits", f"busiest / {slots:.0f} slots", f"{running / slots:,.0f}"],
                [
                    "storages, where a line carries the night's peak into the morning",
                    f"2 x mean / {slots:.0f} slots",
                    f"{2 * mean_running / slots:,.0f}",
                ],
                ["machines of a storage", f"10⁶ / {space:,.0f}", f"{machines:,.0f}"],
                ["backups at once on a storage, busiest", f"{running:,.0f} / {space:,.0f}", f"{running / space:.1f}"],
                [
                    "network to all storages, mean",
                    f"10⁶ x {gib:.0f} GiB x 2 % in a day",
                    f"{changed:,.0f} Gbit/s, {changed / space * 1000:.0f} Mbit/s each",
                ],
                ["network to the coordinators", "calls a second x 4 kB", f"{traffic / 1e6:,.0f} Mbit/s"],
                [
                    "a storage's list of machines",
                    f"{machines:,.0f} x 400 bytes every 5 minutes",
                    f"{listed / 1e6:.1f} MB, all storages {listed * space * 8 / 300 / 1e6:.0f} Mbit/s",
                ],
            ],
            right=2,
        )

    def calls_a_second(self) -> float:
        return sum(self.per_machine_day(call) for call in _CALLS if call != "storage_update_config") * MILLION / DAY

    def million_writes(self) -> str:
        written = dict(self.postgresql["rows_written_per_machine_day"])
        seen = written.pop("fleet_machine", 0.0) + written.pop("of calls counted and not sent")
        written.pop("fleet_storage", None)
        rest = sum(written.values())
        days = ASSUMED["days that records of runs are kept"]
        runs = self.week["runs_per_machine_day"]
        rows = [
            ["machines seen", f"{seen:.0f}", f"{seen * MILLION / DAY:,.0f}", "in place: no index is written (HOT)"],
            ["all other tables", f"{rest:.1f}", f"{rest * MILLION / DAY:,.0f}", "indexes are written"],
            [
                f"runs deleted that are older than {days:.0f} days",
                f"{runs:.1f}",
                f"{runs * MILLION / DAY:,.0f}",
                f"{runs * MILLION / 5000:,.0f} batches of 5,000 a day",
            ],
        ]
        return table(["rows written", "per machine and day", "a second at 10⁶", ""], rows)

    def tables(self) -> dict[str, Callable[[], str]]:
        return {
            "load": self.load,
            "latency": self.latency,
            "drain": self.drain,
            "spread": self.spread,
            "costs": self.costs,
            "rows written": self.rows_written,
            "bytes per row": self.bytes_per_row,
            "million rows": self.million_rows,
            "million load": self.million_load,
            "million writes": self.million_writes,
            "million storages": self.million_storages,
        }


def _span(seconds: int) -> str:
    return {60: "a minute", 3600: "an hour"}.get(seconds, f"{seconds // 3600} hours")


def _short(count: float) -> str:
    return f"{count / 1e6:,.1f} million" if count >= 1e6 else f"{count:,.0f}"


def _bytes(size: float) -> str:
    return f"{size / 1e12:.1f} TB" if size >= 1e12 else f"{size / 1e9:.1f} GB"


def main() -> None:
    names = ("fleet.json", "fleet-postgresql.json", "row_sizes.json")
    page = Page(*(json.loads((FIGURES / name).read_text()) for name in names))
    text = PAGE.read_text()
    for name, make in page.tables().items():
        pattern = re.compile(rf"(?<=<!-- begin {name} -->\n).*?(?=<!-- end {name} -->)", re.DOTALL)
        content = f"\n{make()}\n\n"
        text, count = pattern.subn(content.replace("\\", r"\\"), text)
        if count != 1:
            raise SystemExit(f"{PAGE}: {count} places for the table {name!r}")
    PAGE.write_text(text)
    for name, value in page.notes.items():
        print(f"{name}: {value:.2f}")


if __name__ == "__main__":
    main()
