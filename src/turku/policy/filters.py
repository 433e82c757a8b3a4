"""rsync's filter rules, parsed to types and printed back (rsync(1), FILTER RULES).

A machine's rules run on a storage. Rules that read files there are refused (merge files, per-directory merge files, CVS
ignores), and so is the rule that clears the rules before it. ``merge NAME`` names a filter set of the coordinator. Its
rules replace it before anything reaches rsync (contract, "Calls").
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from turku.errors import InvalidValue
from turku.policy.characters import code_point, is_line_break_or_control, shown, size_bytes

PATTERN_LIMIT_BYTES = 4000
"""Longest pattern. rsync silently drops a pattern of its path limit (4096 bytes) or more."""
EXPANDED_RULES_LIMIT = 10_000
NESTING_LIMIT = 20

_HINT = "a rule is a prefix, modifiers, one blank and a pattern, such as '- *.tmp', '+ /keep/***' or 'P lost+found/'"


class FilterKind(StrEnum):
    """The effect of a rule on matching names. The value is rsync's short prefix."""

    EXCLUDE = "-"
    INCLUDE = "+"
    HIDE = "H"
    SHOW = "S"
    PROTECT = "P"
    RISK = "R"


_LONG_NAMES = {**{kind.name.lower(): kind.value for kind in FilterKind}, "merge": ".", "dir-merge": ":", "clear": "!"}
_SHORT_NAMES = frozenset(_LONG_NAMES.values())
_KINDS = frozenset(FilterKind)
_MODIFIERS = "/!srpx"
"""Modifiers: absolute path, negation, sender's side, receiver's side, perishable, extended attributes."""
_SIDE_MODIFIERS = "sr"
_SIDED = (FilterKind.HIDE, FilterKind.SHOW, FilterKind.PROTECT, FilterKind.RISK)
_SEPARATORS = " _"
_READS_FILES = {
    ".": "names a merge file of the storage",
    ":": "makes the storage look for rules in directories",
    "!": "throws away the rules before it",
}


@dataclass(frozen=True)
class FilterRule:
    """A filter rule that decides by names only."""

    kind: FilterKind
    pattern: str
    modifiers: str = ""
    """Some of ``/!srpx``, each once, in this order."""

    @property
    def text(self) -> str:
        """The rule as an argument of rsync's ``--filter``."""
        return f"{self.kind}{self.modifiers} {self.pattern}"


def parse_rule(text: str) -> FilterRule:
    """Parse a rule. Raises InvalidValue if rsync would refuse it, or if it reads files or clears rules."""
    _require_clean(text)
    prefix, rest = _split_prefix(text)
    if prefix in _READS_FILES:
        raise InvalidValue(f"the rule {shown(text)} {_READS_FILES[prefix]}, which is not allowed", hint=_HINT)
    if prefix not in _KINDS:
        raise InvalidValue(f"{shown(text)} is not a valid filter rule", hint=_HINT)
    kind = FilterKind(prefix)
    modifiers, pattern = _split_modifiers(rest)
    _require_modifiers(kind, modifiers, text)
    _require_pattern(pattern, text)
    return FilterRule(kind, pattern, "".join(letter for letter in _MODIFIERS if letter in modifiers))


def parse_exclude(text: str) -> FilterRule:
    """Parse a pattern as rsync's ``--exclude`` does: a leading ``- `` has no effect, a leading ``+ `` includes.

    Raises InvalidValue if rsync would refuse it, if it is empty, and for ``!``, which clears rules.
    """
    _require_clean(text)
    if text == "!":
        raise InvalidValue(
            f"the pattern {shown(text)} {_READS_FILES['!']}, which is not allowed", hint="write [!] for it"
        )
    kind, pattern = FilterKind.EXCLUDE, text
    if text.startswith(("- ", "+ ")):
        kind, pattern = FilterKind(text[0]), text[2:]
    _require_pattern(pattern, text)
    return FilterRule(kind, pattern)


def expand(rules: Sequence[str], find: Callable[[str], Sequence[str] | None]) -> list[str]:
    """Return the rules as text, with each filter set replaced by its rules. A set named again adds nothing.

    ``find`` returns the rules of a set, or None for an unknown name. Raises InvalidValue.
    """
    expanded: list[str] = []
    for text in _expanded(rules, find, used=set(), depth=NESTING_LIMIT):
        if len(expanded) == EXPANDED_RULES_LIMIT:
            raise InvalidValue(f"there are more than {EXPANDED_RULES_LIMIT} rules, filter sets included")
        expanded.append(text)
    return expanded


def _expanded(
    rules: Sequence[str], find: Callable[[str], Sequence[str] | None], *, used: set[str], depth: int
) -> Iterator[str]:
    if depth == 0:
        raise InvalidValue(f"filter sets name each other more than {NESTING_LIMIT} levels deep")
    for text in rules:
        name = _filter_set_name(text)
        if name is None:
            yield parse_rule(text).text
            continue
        if name in used:
            continue
        used.add(name)
        found = find(name)
        if found is None:
            raise InvalidValue(
                f"there is no filter set {shown(name)}", hint="ask who runs the coordinator for its sets"
            )
        try:
            yield from _expanded(found, find, used=used, depth=depth - 1)
        except InvalidValue as error:
            raise InvalidValue(f"filter set {shown(name)}: {error.message}", hint=error.hint) from None


def _filter_set_name(text: str) -> str | None:
    """Return the name in ``merge NAME`` or ``. NAME``, or None for another rule."""
    _require_clean(text)
    prefix, rest = _split_prefix(text)
    if prefix != ".":
        return None
    modifiers, name = _split_modifiers(rest)
    if modifiers or not name.strip():
        raise InvalidValue(
            f"{shown(text)} names no filter set", hint="write 'merge NAME' or '. NAME', without modifiers"
        )
    return name.strip()


def _require_clean(text: str) -> None:
    if not isinstance(text, str):
        raise InvalidValue("a rule is text", hint=_HINT)
    if text.isprintable():
        # True for nearly every rule, at a hundredth of the cost.
        return
    size_bytes(text)
    bad = next((character for character in text if is_line_break_or_control(character) and character != "\t"), None)
    if bad is not None:
        raise InvalidValue(
            f"{shown(text)} has the character {code_point(bad)}; a rule is one line without control characters",
            hint="the wildcard ? matches any one character",
        )


def _split_prefix(text: str) -> tuple[str, str]:
    """Return the short prefix and the rest of the rule. Without a valid prefix, the first is empty."""
    if text and text[0] in _SHORT_NAMES:
        return text[0], text[1:].removeprefix(",")
    for name, prefix in _LONG_NAMES.items():
        rest = text.removeprefix(name)
        if rest != text and (not rest or rest[0] in f",{_SEPARATORS}"):
            return prefix, rest.removeprefix(",")
    return "", text


def _split_modifiers(rest: str) -> tuple[str, str]:
    """Return the text before the first blank or underscore, and the text after it."""
    end = next((index for index, character in enumerate(rest) if character in _SEPARATORS), len(rest))
    return rest[:end], rest[end + 1 :]


def _require_modifiers(kind: FilterKind, modifiers: str, text: str) -> None:
    if not modifiers:
        return
    if "C" in modifiers:
        raise InvalidValue(f"the modifier 'C' in {shown(text)} makes the storage read its .cvsignore", hint=_HINT)
    valid = [letter for letter in _MODIFIERS if kind not in _SIDED or letter not in _SIDE_MODIFIERS]
    bad = next((letter for letter in modifiers if letter not in valid), None)
    if bad is not None:
        raise InvalidValue(
            f"{shown(bad)} in {shown(text)} is not a valid modifier of this kind of rule; those are {' '.join(valid)}",
            hint=_HINT,
        )


def _require_pattern(pattern: str, text: str) -> None:
    if not pattern:
        raise InvalidValue(f"{shown(text)} has no pattern" if text else "is empty; a pattern such as '*.tmp' is needed")
    size = size_bytes(pattern)
    if size > PATTERN_LIMIT_BYTES:
        raise InvalidValue(f"a pattern is {size} bytes long; rsync takes no more than {PATTERN_LIMIT_BYTES} here")
