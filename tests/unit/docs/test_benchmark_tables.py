"""The tables and plots of the benchmarks' page say what was measured."""

import copy
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench import document, plots

SVG = "{http://www.w3.org/2000/svg}"


def measurement(seconds: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "processor_seconds": seconds / 2,
        "others_share": 0.0,
        "peak_bytes": {"itself": 20_000_000, "storage": 50_000_000},
    }


def found(**turku_seconds: float) -> dict[str, Any]:
    """A run in which restic takes 10 s and borg 8 s for everything."""
    peers = {"restic": 10.0, "borg": 8.0, "rsnapshot": 5.0}
    return {
        "begun": "2026-11-24T12:00:00+00:00",
        "minutes": 10.0,
        "command": "python -m bench.data_path",
        "machine": "a machine",
        "versions": {"restic": "0.14.0"},
        "load_average": [0.1, 0.1, 0.1],
        "is_quick": False,
        "files": 1000,
        "size_bytes": 10**9,
        "steps": {
            step: {
                name: [measurement(value)] for name, value in {"turku": turku_seconds.get(step, 1.0), **peers}.items()
            }
            for step in document.STEPS
        },
        "unchanged_adds": {name: {"bytes": 4096, "inodes": 2} for name in ("turku", *peers)},
        "kept_bytes": dict.fromkeys(("turku", *peers), 10**9),
    }


def rows(table: str, title: str) -> list[str]:
    return [line for line in table.splitlines() if line.startswith(f"| {title} |")]


def test_the_page_has_the_tables_that_its_figures_make() -> None:
    text = document.PAGE.read_text()
    assert document.rewritten(text) == text, "run: python -m bench.document"


def test_a_goal_is_met_or_missed_as_the_peers_of_the_same_run_say() -> None:
    table = document.data_path_table(found(first=7.1, unchanged=3.9, changed=7.1))
    assert rows(table, "first backup")[0].endswith("8.50 | met |")
    assert rows(table, "nothing changed")[0].endswith("4.00 | met |")
    assert rows(table, "one file in a hundred changed")[0].endswith("7.00 | **missed** |")


def test_a_snapshot_that_adds_too_much_is_missed() -> None:
    run = found()
    run["unchanged_adds"]["turku"] = {"bytes": 100_001, "inodes": 20}
    table = document.data_path_table(run)
    assert rows(table, "an unchanged snapshot adds, kB")[0].endswith("**missed** |")
    assert rows(table, "an unchanged snapshot adds, inodes")[0].endswith("**missed** |")


def test_a_busy_machine_is_reported() -> None:
    run = found()
    assert "the machine was quiet" in document.data_path_table(run)
    for by_name in run["steps"].values():
        for each in by_name.values():
            each[0]["others_share"] = 0.5
    assert "while others used the machine" in document.data_path_table(run)


def test_only_what_lies_between_the_marks_is_written(tmp_path: Path) -> None:
    (tmp_path / "data_path.json").write_text(json.dumps(found()))
    text = "before\n<!-- begin data_path -->\nold\n<!-- end data_path -->\nafter\n<!-- begin memory -->\nkept\n<!-- end memory -->\n"
    new = document.rewritten(text, tmp_path)
    assert new.startswith("before\n<!-- begin data_path -->\n")
    assert "old" not in new
    assert new.endswith("<!-- end data_path -->\nafter\n<!-- begin memory -->\nkept\n<!-- end memory -->\n")
    assert document.rewritten(new, tmp_path) == new


def test_a_plot_has_a_bar_for_each_and_the_goal_where_it_is() -> None:
    drawn = plots.bars("a & b", "seconds", [plots.Group("first", {"turku": 5.0, "restic": 10.0}, goal=9.0)])
    root = ElementTree.fromstring(drawn)
    widths = [float(bar.get("width", 0)) for bar in root.iter(f"{SVG}rect")][1:]
    assert widths[1] == 2 * widths[0]
    (goal,) = root.iter(f"{SVG}line")
    left = min(float(bar.get("x", 0)) for bar in list(root.iter(f"{SVG}rect"))[1:])
    assert float(goal.get("x1", 0)) - left == 0.9 * widths[1]
    assert [text.text for text in root.iter(f"{SVG}title")] == ["a & b"]


def test_each_plot_of_the_page_is_of_its_figures() -> None:
    for name, draw in plots.PLOTS.items():
        file = document.FIGURES / f"{name}.json"
        if file.exists():
            drawn = draw(copy.deepcopy(json.loads(file.read_text())))
            assert (plots.DIRECTORY / f"{name}.svg").read_text() == drawn, "run: python -m bench.document"
