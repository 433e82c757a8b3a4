"""Parsers of configuration files that keep the line of each key and report duplicate keys.

The standard readers of JSON and YAML silently use the last of two equal keys, and YAML reads ``0100`` as 64.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

KeyPath = tuple[str, ...]
"""A key with the keys above it."""


class Malformed(ValueError):
    """The text is not in the format of its suffix."""


@dataclass
class Parsed:
    """The content of a file."""

    content: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    """The line of each key in nested dictionaries, from 1. Keys inside lists have none."""
    faults: list[tuple[int, KeyPath, str]] = field(default_factory=list)
    """Line, key and sentence."""

    def add_key(self, path: KeyPath, line: int) -> None:
        """Record a key. A second occurrence is a fault."""
        before = self.lines.setdefault(path, line)
        if before != line or path in self._seen:
            self.faults.append((line, path, f"is there twice; the first one is in line {before}"))
        self._seen.add(path)

    def __post_init__(self) -> None:
        self._seen: set[KeyPath] = set()


def parse_json(text: str) -> Parsed:
    """Return the content of JSON text. Raises Malformed, RecursionError."""
    try:
        parsed = Parsed(json.loads(text))
    except ValueError as error:
        raise Malformed(str(error)) from None
    for path, line in _json_keys(text):
        parsed.add_key(path, line)
    return parsed


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:\n]', re.DOTALL)


def _json_keys(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Yield each key that is in dictionaries only, with its line. The text is valid JSON."""
    line = 1
    # For each open container, the path of its key. None for a list and for containers inside one.
    open_at: list[KeyPath | None] = []
    path: KeyPath | None = ()
    last = ""
    is_dictionary: list[bool] = []
    for match in _TOKEN.finditer(text):
        mark = match[0]
        if mark == "\n":
            line += 1
        elif mark in "{[":
            is_dictionary.append(mark == "{")
            open_at.append(path if mark == "{" else None)
            last = ""
        elif mark in "}]":
            is_dictionary.pop()
            open_at.pop()
            last = ""
        elif mark == ",":
            last = ""
        elif mark == ":":
            above = open_at[-1]
            path = None if above is None else (*above, str(json.loads(last)))
            if path is not None:
                yield path, line
        else:
            last = mark
        if mark in "{[,":
            # The items of a list and the keys of a dictionary have no path yet.
            path = None if is_dictionary and not is_dictionary[-1] else path


def parse_yaml(text: str) -> Parsed:
    """Return the content of YAML text. Raises Malformed, RecursionError."""
    try:
        import yaml
    except ImportError:
        raise Malformed("YAML needs the PyYAML package; install turku[yaml] or write JSON") from None
    parsed = Parsed(None)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _check_node(node, (), parsed, set())
            parsed.content = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise Malformed(" ".join(str(error).split())) from error
    except ValueError as error:
        # For example a date that no calendar has.
        raise Malformed(str(error)) from None
    return parsed


_INTEGER = "tag:yaml.org,2002:int"
_MERGE = "tag:yaml.org,2002:merge"
_UNLIKE_DECIMAL = re.compile(r"[-+]?0[0-7_]*[1-7][0-7_]*|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+", re.ASCII)


def _check_node(node: Any, path: KeyPath | None, parsed: Parsed, seen: set[int]) -> None:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        _check_number(node, path or (), parsed)
        return
    # The target of an alias is visited once.
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            # Items of a list have no key, so the key of the list is named.
            _check_item(item, path or (), parsed, seen)
        return
    for key, value in node.value:
        inner: KeyPath | None = None
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            _check_number(key, path or (), parsed)
            if path is not None:
                inner = (*path, key.value)
                parsed.add_key(inner, key.start_mark.line + 1)
        _check_node(value, inner, parsed, seen)


def _check_item(node: Any, path: KeyPath, parsed: Parsed, seen: set[int]) -> None:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        _check_number(node, path, parsed)
    else:
        _check_node(node, None, parsed, seen)


def _check_number(node: Any, path: KeyPath, parsed: Parsed) -> None:
    if node.tag != _INTEGER or node.style is not None or not _UNLIKE_DECIMAL.fullmatch(node.value):
        return
    import yaml

    read = yaml.SafeLoader("").construct_yaml_int(node)
    digits = node.value.replace("_", "")
    if digits.lstrip("+-").isdigit() and int(digits) == read:
        return
    why = "a colon makes it a number of base 60" if ":" in digits else "a leading zero makes it octal"
    parsed.faults.append(
        (node.start_mark.line + 1, path, f"{node.value} is read as {read}, as {why}; put it in quotes")
    )
