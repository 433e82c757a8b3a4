"""Warnings about sources that the coordinator rejects or ignores. `check` and `update-config` show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from turku.agent.capture import excluded_paths
from turku.agent.capture import mounts as mount_points
from turku.agent.config.model import AgentConfig, SourceConfig
from turku.policy import source_options


@dataclass(frozen=True)
class SourceWarning:
    """A sentence about a source. ``is_problem`` says that the source cannot be backed up as it is."""

    text: str
    is_problem: bool


def warnings(source: SourceConfig) -> list[SourceWarning]:
    """Return all warnings about the source's directory, and about its options as the coordinator reads them."""
    found = []
    found += [SourceWarning(text, is_problem=False) for text in [_about_directory(Path(source.path))] if text]
    if excluded_paths.is_mount_missing(source):
        found.append(SourceWarning("nothing is mounted there now, so that it would not be backed up", is_problem=False))
    mounts = mount_points.all_mounts()
    others = excluded_paths.other_file_systems(source, mounts)
    if any(not mount.is_of_the_kernel for mount in others):
        found.append(SourceWarning(excluded_paths.other_file_systems_text(others), is_problem=False))
    found += [
        SourceWarning(f"{volume} is not backed up: it is a volume of the storage on this machine", is_problem=False)
        for volume in excluded_paths.volumes_within(source, mounts)
    ]
    for name, close in source_options.unknown_names(source.options):
        suggestion = f"; did you mean {close}?" if close else ""
        found.append(SourceWarning(f"{name}: unknown option, sent as it is{suggestion}", is_problem=False))
    found += [SourceWarning(str(problem), is_problem=True) for problem in source_options.problems(source.options)]
    return found


def _about_directory(path: Path) -> str:
    try:
        if path.is_dir():
            return ""
        return "is not a directory" if path.exists() else "no such directory now"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def problems(agent: AgentConfig) -> Iterator[str]:
    """Yield the problems for which the coordinator would reject the machine's sources, each with its place."""
    for source in agent.sources.values():
        for problem in source_options.problems(source.options):
            yield f"{source.place or source.name}: {problem}"
    for together in source_options.problems_together({each.name: each.options for each in agent.sources.values()}):
        yield f"{agent.config_dir / 'sources.d'}: {together}"
