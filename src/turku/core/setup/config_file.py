"""The configuration file that setup writes. What an administrator's own files say is left to them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from turku.core.configuration import directory

FILE: Final = "setup.json"


@dataclass(frozen=True)
class ConfigFiles:
    """The content of a directory ``config.d``."""

    earlier: Mapping[str, Any]
    """The content of the file of an earlier setup. Empty for a malformed one, which its step names."""
    others: Mapping[str, Any]
    """The merged content of the administrator's own files."""

    @property
    def has_earlier(self) -> bool:
        """True if there is a file of an earlier setup that can be read."""
        return bool(self.earlier)

    def own(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of the content that setup writes, because the administrator's files do not have it."""
        return _without(content, self.others)

    def earlier_without(self, keys: Collection[str]) -> dict[str, Any]:
        """Return the content of the earlier setup without keys that are chosen anew."""
        return {key: value for key, value in self.earlier.items() if key not in keys}

    def merged(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content with the administrator's files over it."""
        return directory.merge(dict(content), self.others)


def read(config_d: Path) -> ConfigFiles:
    """Return the content of the directory, which may be missing."""
    earlier: Mapping[str, Any] = {}
    others: dict[str, Any] = {}
    for path in sorted(config_d.iterdir()) if config_d.is_dir() else ():
        found = directory.read_one(path)
        if found is not None and path.name == FILE:
            # What is there twice, for example, must not be lost to a new file.
            earlier = {} if found.faults else found.content
        elif found is not None:
            others = directory.merge(others, found.content)
    return ConfigFiles(earlier, others)


def _without(content: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in content.items():
        if key not in others:
            kept[key] = value
        elif isinstance(value, dict) and isinstance(others[key], dict):
            rest = _without(value, others[key])
            if rest:
                kept[key] = rest
    return kept
