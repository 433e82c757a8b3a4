"""Write the tables of the benchmarks into `docs/benchmarks.md`, between markers, and the plots beside it.

`.venv/bin/python -m bench.document` makes them all again from the files of JSON in `bench/figures`, without measuring.
A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. The rest of the page is written by people.
"""

import json
import math
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import plots

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "benchmarks.md"
FIGURES = REPOSITORY / "bench" / "figures"
_PEERS = ("restic", "borg", "rsnapshot")
STEPS = {
    "first": "first backup",
    "unchanged": "nothing changed",
    "changed": "one file in a hundred changed",
    "restore": "restore of everything",
    "one file": "one file out of it, verified",
}
Found = Mapping[str, Any]


def seconds(found: Found, step: str, name: str) -> float:
    """The median of a step."""
    return statistics.median(float(each["seconds"]) for each in found["steps"][step][name])


def processor_seconds(found: Found, step: str, name: str) -> float:
    """The median of a step's processor time, of all its processes."""
    return statistics.median(float(each["processor_seconds"]) for each in found["steps"][step][name])


def goals(found: Found) -> dict[str, tuple[str, float]]:
    """For each step what is wanted, in words and as the most seconds that Turku may take, by the same run's peers."""
    shares = {"first": 0.85, "unchanged": 0.4, "changed": 0.7, "restore": 0.95}
    return {
        **{step: (f"{share:g} times restic", share * seconds(found, step, "restic")) for step, share in shares.items()},
        "one file": ("2 s", 2.0),
    }


_COST_OF_PROPERTIES = {"first": 1.1, "unchanged": 1.4, "changed": None, "restore": None}
"""Steps, and the most that they may take longer."""


def data_path_table(found: Found) -> str:
    """The tables of the data path."""
    wanted = goals(found)
    lines = [
        _conditions(found),
        "",
        "| wall time, seconds | Turku | restic | borg | rsnapshot | Turku : restic | Turku : borg | goal | |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for step, title in STEPS.items():
        times = {name: seconds(found, step, name) for name in ("turku", *_PEERS)}
        words, most = wanted[step]
        turku, restic = times["turku"], times["restic"]
        lines.append(
            f"| {title} | **{times['turku']:.2f}** | {times['restic']:.2f} | {times['borg']:.2f} "
            f"| {times['rsnapshot']:.2f} | {turku / restic:.2f} | {turku / times['borg']:.2f} "
            f"| {words}: {most:.2f} | {_verdict(turku <= most)} |"
        )
    if "without" in found["steps"]["first"]:
        lines += _cost_of_properties(found)
    lines += [
        "",
        "| processor time, seconds | Turku | restic | borg | rsnapshot | Turku : restic | others had, during Turku's |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for step, title in STEPS.items():
        times = {name: processor_seconds(found, step, name) for name in ("turku", *_PEERS)}
        share = statistics.median(each["others_share"] for each in found["steps"][step]["turku"])
        lines.append(
            f"| {title} | {times['turku']:.2f} | {times['restic']:.2f} | {times['borg']:.2f} "
            f"| {times['rsnapshot']:.2f} | {times['turku'] / times['restic']:.2f} | {share:.0%} |"
        )
    lines += ["", "| on the disk | Turku | restic | borg | rsnapshot | goal | |", "|---|---:|---:|---:|---:|---|---|"]
    added = found["unchanged_adds"]
    names = ("turku", *_PEERS)
    lines += [
        "| after the first backup, MB | "
        + " | ".join(f"{found['kept_bytes'][name] / 1e6:,.0f}" for name in names)
        + " | | |",
        "| an unchanged snapshot adds, kB | "
        + " | ".join(f"{added[name]['bytes'] / 1e3:,.0f}" for name in names)
        + f" | under 100 | {_verdict(added['turku']['bytes'] < 100_000)} |",
        "| an unchanged snapshot adds, inodes | "
        + " | ".join(f"{added[name]['inodes']:,.0f}" for name in names)
        + f" | under 20 | {_verdict(added['turku']['inodes'] < 20)} |",
    ]
    lines += ["", "| most memory at a moment, MB | agent | storage session | restic | borg | rsnapshot |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    for step, title in list(STEPS.items())[:4]:
        peaks = [_peak(found, step, "turku", "itself"), _peak(found, step, "turku", "storage")]
        peaks += [_peak(found, step, name, "itself") for name in _PEERS]
        lines.append(f"| {title} | " + " | ".join(f"{peak / 1e6:.0f}" for peak in peaks) + " |")
    return "\n".join(lines)


def _cost_of_properties(found: Found) -> list[str]:
    lines = [
        "",
        "| what ACLs, attributes, hard links and holes cost | with them | without them | ratio | goal | |",
        "|---|---:|---:|---:|---|---|",
    ]
    for step, most in _COST_OF_PROPERTIES.items():
        kept, left_out = seconds(found, step, "turku"), seconds(found, step, "without")
        goal = f"at most {most:g} | {_verdict(kept <= most * left_out)}" if most else "|"
        lines.append(f"| {STEPS[step]} | {kept:.2f} | {left_out:.2f} | {kept / left_out:.2f} | {goal} |")
    return lines


def _peak(found: Found, step: str, name: str, part: str) -> float:
    return max(float(each["peak_bytes"].get(part, 0)) for each in found["steps"][step][name])


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _conditions(found: Found) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    rounds = len(found["steps"]["first"]["turku"])
    unchanged, changed = (len(found["steps"][step]["turku"]) for step in ("unchanged", "changed"))
    shares = [
        each["others_share"] for by_name in found["steps"].values() for all_of in by_name.values() for each in all_of
    ]
    busy = statistics.median(shares)
    quiet = (
        "the machine was quiet" if busy < 0.1 else "**measured while others used the machine, to be measured again**"
    )
    return (
        f"{found['begun'][:16].replace('T', ' ')} UTC, `{found['command']}` ({found['minutes']:g} minutes): "
        f"{found['files']:,} files, {found['size_bytes'] / 1e9:.2f} GB. {found['machine']}. {versions}. "
        f"Medians of {rounds} first backup{'s' if rounds > 1 else ''}, {unchanged} unchanged, {changed} changed. "
        f"Load average {' '.join(f'{load:g}' for load in found['load_average'])} at the end. Other work took "
        f"{busy:.0%} of the processors (median of all steps): {quiet}."
    )


def background_removal_table(found: Found) -> str:
    """The table of backups that have a removal beside them."""
    lines = [
        f"{found['begun'][:16].replace('T', ' ')} UTC: {found['snapshots']} snapshots of {found['files']:,} files. "
        f"{found['machine']}. Load average {' '.join(f'{load:g}' for load in found['load_average'])}. "
        f"{found['trees_at_first'] - found['trees_left']} of {found['trees_at_first']} trees were removed in the "
        f"{found['removal_seconds']:.0f} s of the measurement.",
        "",
        "| source | backups | alone, median (longest) | while it removes, median (longest) | ratio | not delayed |",
        "|---|---:|---:|---:|---:|---|",
    ]
    alone = statistics.median(found["backups"]["large"]["alone"])
    lines.append(
        f"| large, the backup after which they expire | 1 | {alone:.2f} s | {found['retiring_seconds']:.2f} s "
        f"| {found['retiring_seconds'] / alone:.2f} | {_verdict(not found['is_delayed']['retiring'])} |"
    )
    for source, each in found["backups"].items():
        before, meanwhile = each["alone"], each["meanwhile"]
        one, other = statistics.median(before), statistics.median(meanwhile)
        lines.append(
            f"| {source} | {len(meanwhile)} | {one:.2f} s ({max(before):.2f}) | {other:.2f} s ({max(meanwhile):.2f}) "
            f"| {other / one:.2f} | {_verdict(not found['is_delayed'][source])} |"
        )
    return "\n".join(lines)


def network_table(found: Found) -> str:
    """The tables of the data path over lines with delay and rate."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if name != "rsnapshot")
    parts = [
        f"{found['begun'][:16].replace('T', ' ')} UTC, `{found['command']}` ({found['minutes']:g} minutes): "
        f"{found['files']:,} files, {found['size_bytes'] / 1e9:.2f} GB. {found['machine']}. {versions}."
    ]
    for line in found["lines"]:
        parts += [
            "",
            f"| seconds, with {line['milliseconds']:g} ms there and back and {line['megabits']:g} Mbit/s "
            "| Turku | restic | borg | Turku : restic | Turku : borg | goal | |",
            "|---|---:|---:|---:|---:|---:|---|---|",
        ]
        for step, title in STEPS.items():
            turku, restic, borg = (seconds(line, step, name) for name in ("turku", "restic", "borg"))
            words, most = {
                "first": ("as long as borg", borg),
                "unchanged": ("as long as borg", borg),
                "changed": ("1.1 times borg", 1.1 * borg),
                "restore": ("0.9 times the quicker", 0.9 * min(restic, borg)),
            }.get(step, ("", math.inf))
            parts.append(
                f"| {title} | **{turku:.2f}** | {restic:.2f} | {borg:.2f} | {turku / restic:.2f} | {turku / borg:.2f} "
                + (f"| {words}: {most:.2f} | {_verdict(turku <= most)} |" if words else "| | |")
            )
    return "\n".join(parts)


def _program(name: str) -> str:
    # The kernel keeps fifteen letters of a program's name. Processes of no named part are the machine's.
    part, _colon, program = name.partition(": ")
    whole = {"turku-storage-p": "turku-storage-ping", "turku-agent-pin": "turku-agent-ping"}.get(program, program)
    return f"{'agent' if part == 'itself' else part}: {whole}"


def modifying_files_table(found: Found) -> str:
    """The table of the space that a file takes of which a little changes each day."""
    goal = found["goal_times_the_file"]
    lines = [
        f"{found['begun'][:10]}: a file of {found['size_mib']:,} MiB, {found['percent']:g} % of its pages written anew "
        f"each day, {found['days']} days. Goal: {goal:g} times the file, of which the changes are "
        f"{found['percent'] / 100 * found['days']:g}.",
        "",
        "| mode | file system | taken, times the file | | first backup | a later one |",
        "|---|---|---:|---|---:|---:|",
    ]
    for case in found["cases"]:
        times = [f"{case[name]:.1f} s" if name in case else "" for name in ("first_seconds", "later_seconds")]
        lines.append(
            f"| {case['mode']} | {case['file_system']} | {case['times_the_file']:.2f} "
            f"| {_verdict(case['times_the_file'] <= goal) if case['mode'] != 'link-dest' else 'to compare with'} "
            f"| {' | '.join(times)} |"
        )
    return "\n".join(lines)


AGENT_GOAL_BYTES, SESSION_GOAL_BYTES = 60_000_000, 150_000_000


def memory_table(found: Found) -> str:
    """The table of memory."""
    lines = [
        f"{found['begun'][:16].replace('T', ' ')} UTC: {found['files']:,} files. {found['machine']}, "
        f"rsync {found['versions']['rsync']}.",
        "",
        "| backup | seconds | agent, at most 60 MB | | storage session, at most 150 MB | | most of it |",
        "|---|---:|---:|---|---:|---|---|",
    ]
    for step, each in found["steps"].items():
        agent, session = each["peak_bytes"].get("itself", 0), each["peak_bytes"].get("storage", 0)
        sizes = {name: size for name, size in each["program_bytes"].items() if not name.startswith("coordinator")}
        largest = sorted(sizes.items(), key=lambda item: -item[1])
        most = ", ".join(f"{_program(name)} {size / 1e6:.0f} MB" for name, size in largest[:3])
        lines.append(
            f"| {STEPS[step]} | {each['seconds']:.1f} | {agent / 1e6:.0f} MB | {_verdict(agent <= AGENT_GOAL_BYTES)} "
            f"| {session / 1e6:.0f} MB | {_verdict(session <= SESSION_GOAL_BYTES)} | {most} |"
        )
    return "\n".join(lines)


def admin_lists_table(found: Found) -> str:
    """The table of the lists of the admin site."""
    goal = found["goal_seconds"]
    host = found["machine"].replace("; ", ", ")
    lines = [
        f"{found['begun'][:16].replace('T', ' ')} UTC, {found['machines']:,} machines. {host}."
        + (" **Others used the machine, to be measured again.**" if found["load_average"][0] > 2 else ""),
        "",
        f"| database | list | pages | opens | median | slowest page | under {goal * 1000:.0f} ms |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for row in found["rows"]:
        opens, median, slowest = (row[f"{name}_seconds"] * 1000 for name in ("opens", "median", "slowest"))
        lines.append(
            f"| {row['database']} | {row['list']} | {row['pages']} | {opens:.0f} ms | {median:.0f} ms "
            f"| {slowest:.0f} ms ({row['slowest_page']}) | {_verdict(slowest < goal * 1000)} |"
        )
    return "\n".join(lines)


TABLES: dict[str, Callable[[Found], str]] = {
    "data_path": data_path_table,
    "network": network_table,
    "background_removal": background_removal_table,
    "memory": memory_table,
    "admin_lists": admin_lists_table,
    "modifying_files": modifying_files_table,
}
"""The tables that are made from ``bench/figures/NAME.json``."""


def write_result(found: Found, name: str, *, result: Path | None, is_figure: bool) -> None:
    """Write ``found`` to the file ``result``. Without one ``is_figure`` makes it the page's figures of ``name``.

    The page follows its figures.
    """
    target = result or (FIGURES / f"{name}.json" if is_figure else None)
    if target is None:
        return
    target.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {target}")
    if target.parent == FIGURES:
        rewrite()


def rewritten(text: str, figures: Path = FIGURES) -> str:
    """Return the page with its tables made from the figures. Tables without figures and all else stay as they are."""
    for name, table in TABLES.items():
        file = figures / f"{name}.json"
        marked = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        found = marked.search(text)
        if file.exists() and found:
            content = table(json.loads(file.read_text()))
            text = f"{text[: found.end(1)]}\n{content}\n\n{text[found.start(2) :]}"
    return text


def rewrite() -> None:
    """Make the tables between the page's markers, and the plots, anew from what was measured last."""
    PAGE.write_text(rewritten(PAGE.read_text()))
    plots.draw_all(FIGURES)


if __name__ == "__main__":
    rewrite()
