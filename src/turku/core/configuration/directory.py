"""Configuration directories: all files are read and merged key by key, and all faults are reported together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turku.core import durable
from turku.core.configuration.text import KeyPath, parse_json, parse_yaml
from turku.errors import ConfigurationError

_YAML_SUFFIXES = (".yaml", ".yml")
SUFFIXES = (".json", *_YAML_SUFFIXES)
FILE_LIMIT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Fault:
    """A mistake in a configuration, with its place."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass
class MergedFiles:
    """The merged content of configuration directories, with the file of each top-level key, and faults."""

    content: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Path] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    """The line of each top-level key in the file that it came from."""
    ignored: list[str] = field(default_factory=list)
    """Sentences on files of the directories that are not read."""

    def place_with_line(self, key: str) -> str:
        """Return file, line and top-level key: ``/etc/turku-agent/sources.d/a.json, line 3: etc``."""
        if key not in self.origins:
            return key
        line = f", line {self.lines[key]}" if key in self.lines else ""
        return f"{self.origins[key]}{line}: {key}"

    def place(self, key: str) -> str:
        """Return file and key, as people look for them: ``/etc/turku-agent/config.d/a.json: api_url``."""
        origin = self.origins.get(key.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0])
        return f"{origin}: {key}" if origin else key


def merge(lower: dict[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``lower`` with ``upper`` laid over it, nested dictionaries key by key (configuration reference)."""
    result = dict(lower)
    for key, value in upper.items():
        below = result.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            result[key] = merge(below, value)
        else:
            result[key] = value
    return result


def read_directories(directories: Iterable[Path]) -> MergedFiles:
    """Merge all ``*.json`` and ``*.yaml`` of the directories, in the given order and then by file name.

    A missing directory is empty. Faults (unreadable, malformed, not a dictionary) are collected, never raised.
    """
    merged = MergedFiles()
    for directory in directories:
        try:
            entries = sorted(directory.iterdir())
        except FileNotFoundError:
            continue
        except OSError as error:
            merged.faults.append(Fault(str(directory), f"cannot be read: {error.strerror}"))
            continue
        for path in entries:
            reason = _why_ignored(path)
            if reason is None:
                _read_file(path, merged)
            elif reason:
                merged.ignored.append(f"{path}: {reason}")
    return merged


def read_one(path: Path) -> MergedFiles | None:
    """Return the content of one file of a configuration directory, or None for a file that is not read there."""
    if _why_ignored(path) is not None:
        return None
    merged = MergedFiles()
    _read_file(path, merged)
    return merged


def _why_ignored(path: Path) -> str | None:
    """Return the reason why a file is not read. None: it is read. Empty: nobody would expect it to be."""
    has_suffix = path.suffix in SUFFIXES
    if not path.name.startswith("."):
        return None if has_suffix else f"is not read: its name does not end with one of {', '.join(SUFFIXES)}"
    is_half_written = durable.is_temporary_name(path.name)
    return "is not read: its name begins with a dot" if has_suffix and not is_half_written else ""


def read_with_state(config_dir: Path, *, default_var_dir: str) -> MergedFiles:
    """Merge ``config_dir/config.d`` over ``var_dir/config.d``: administrators win over what programs generated.

    ``var_dir`` is itself a key of ``config_dir/config.d``, so that directory is read twice.
    """
    etc = config_dir / "config.d"
    merged = read_directories([etc])
    var_dir = merged.content.get("var_dir", default_var_dir)
    if isinstance(var_dir, str) and Path(var_dir).is_absolute():
        merged = read_directories([Path(var_dir) / "config.d", etc])
    return merged


def _read_file(path: Path, merged: MergedFiles) -> None:
    try:
        if path.stat().st_size > FILE_LIMIT_BYTES:
            merged.faults.append(Fault(str(path), f"larger than {FILE_LIMIT_BYTES} bytes"))
            return
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        merged.faults.append(Fault(str(path), f"is not UTF-8 text (byte {error.start})"))
        return
    except OSError as error:
        merged.faults.append(Fault(str(path), f"cannot be read: {error.strerror}"))
        return
    if not text.strip():
        # A write that was cut short leaves such a file: what it said must not silently be unsaid.
        merged.faults.append(Fault(str(path), "is empty; write {} for no keys, or remove it"))
        return
    try:
        parsed = parse_yaml(text) if path.suffix in _YAML_SUFFIXES else parse_json(text)
    except (ValueError, RecursionError) as error:
        merged.faults.append(Fault(str(path), f"malformed {path.suffix[1:].upper()}: {error}"))
        return
    merged.faults += [Fault(_place(path, line, key), message) for line, key, message in parsed.faults]
    content = {} if parsed.content is None else parsed.content
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        merged.faults.append(Fault(str(path), "must hold a dictionary with text keys at its top"))
        return
    merged.content = merge(merged.content, content)
    merged.origins.update(dict.fromkeys(content, path))
    for key in content:
        # The line in an earlier file does not count any more.
        merged.lines.pop(key, None)
        if (line := parsed.lines.get((key,))) is not None:
            merged.lines[key] = line


def _place(path: Path, line: int, key: KeyPath) -> str:
    return f"{path}, line {line}" + (f": {'.'.join(key)}" if key else "")


def refuse(faults: Iterable[Fault], *, program: str) -> None:
    """Raise ConfigurationError naming every fault, if there is one."""
    listed = list(faults)
    if listed:
        count = f"{len(listed)} fault{'s' if len(listed) > 1 else ''}"
        raise ConfigurationError(
            f"the configuration of {program} has {count}:\n" + "\n".join(f"  {fault}" for fault in listed),
            hint="fix the files named above; docs/reference/configuration.md describes every key",
        )
