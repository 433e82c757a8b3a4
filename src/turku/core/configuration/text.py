"""Parsers of configuration files that keep the line of each key and report duplicate keys.

The standard readers of JSON and YAML silently use the last of two equal keys, and YAML reads ``0100`` as 64.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

KeyPath = tuple[str, ...]
"""A key with the keys above it."""


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
        if path in self.lines:
            self.faults.append((line, path, f"is there twice; the first one is in line {self.lines[path]}"))
        else:
            self.lines[path] = line


def parse_json(text: str) -> Parsed:
    """Return the content of JSON text. Raises ValueError where it is malformed, RecursionError."""
    parsed = Parsed(json.loads(text))
    for path, line in _json_keys(text):
        parsed.add_key(path, line)
    return parsed


# A text is a key if a colon follows.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"(?=\s*(:?))|[{}\[\]\n]', re.DOTALL)


def _json_keys(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Yield each key that is in dictionaries only, with its line. The text is valid JSON."""
    line = 1
    # For each open container, the path of its key. None for a list and for containers inside one.
    open_at: list[KeyPath | None] = []
    path: KeyPath | None = ()
    for match in _TOKEN.finditer(text):
        mark = match[0]
        if mark == "\n":
            line += 1
        elif mark in "{[":
            path = path if mark == "{" else None
            open_at.append(path)
        elif mark in "}]":
            open_at.pop()
            path = None
        elif match[1]:
            above = open_at[-1]
            path = None if above is None else (*above, json.loads(mark))
            if path is not None:
                yield path, line


def parse_yaml(text: str) -> Parsed:
    """Return the content of YAML text. Raises ValueError where it is malformed, RecursionError."""
    try:
        import yaml
    except ImportError:
        raise ValueError("YAML needs the PyYAML package; install turku[yaml] or write JSON") from None
    parsed = Parsed(None)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _check_node(node, (), parsed, set())
            # Raises ValueError too, for example for a date that no calendar has.
            parsed.content = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    return parsed


_INTEGER = "tag:yaml.org,2002:int"
_MERGE = "tag:yaml.org,2002:merge"
_UNLIKE_DECIMAL = re.compile(r"[-+]?0[0-7_]*[1-7][0-7_]*|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+", re.ASCII)


def _check_node(node: Any, path: KeyPath, parsed: Parsed, seen: set[int], *, has_path: bool = True) -> None:
    """Check a node below the key ``path``. Without ``has_path``, a list or a merge lies between them."""
    import yaml

    if isinstance(node, yaml.ScalarNode):
        _check_number(node, path, parsed)
        return
    # The target of an alias is visited once.
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_node(item, path, parsed, seen, has_path=False)
        return
    for key, value in node.value:
        inner, is_named = path, False
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            _check_number(key, path, parsed)
            if is_named := has_path:
                inner = (*path, key.value)
                parsed.add_key(inner, key.start_mark.line + 1)
        _check_node(value, inner, parsed, seen, has_path=is_named)


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
