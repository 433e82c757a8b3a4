"""rsync's filter rules: what is lawful is printed back, what reads files or clears rules is refused."""

from collections.abc import Mapping, Sequence

import pytest

from turku.errors import InvalidValue
from turku.policy import filters
from turku.policy.filters import FilterKind, FilterRule


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("- *.tmp", "- *.tmp"),
        ("+ /keep/***", "+ /keep/***"),
        ("-_*.o", "- *.o"),
        ("- _x", "- _x"),
        ("-  two blanks", "-  two blanks"),
        ("- end ", "- end "),
        ("- \ttab", "- \ttab"),
        ("exclude *.tmp", "- *.tmp"),
        ("include_*.tmp", "+ *.tmp"),
        ("exclude,s foo", "-s foo"),
        ("hide foo", "H foo"),
        ("show foo", "S foo"),
        ("protect foo", "P foo"),
        ("risk foo", "R foo"),
        ("risk,p foo", "Rp foo"),
        ("-,sp foo", "-sp foo"),
        ("-, foo", "- foo"),
        ("-ps/! foo", "-/!sp foo"),
        ("-ss foo", "-s foo"),
        ("-rs foo", "-sr foo"),
        ("-x user.*", "-x user.*"),
        ("H/!px foo", "H/!px foo"),
        ("- !", "- !"),
        ("- . /etc/passwd", "- . /etc/passwd"),
        ("- \u00fc*", "- \u00fc*"),
        ("+ *", "+ *"),
    ],
)
def test_lawful_rules_are_printed_back_in_one_form(text: str, printed: str) -> None:
    assert filters.parse_rule(text).text == printed
    assert filters.parse_rule(printed).text == printed


def test_a_rule_has_its_parts() -> None:
    assert filters.parse_rule("protect,p! lost+found/") == FilterRule(FilterKind.PROTECT, "lost+found/", "!p")


@pytest.mark.parametrize(
    "text",
    [
        *("merge /etc/passwd", ". /etc/passwd", "._/etc/passwd", "merge_x", "merge,- x", ".- x", ".e x", "merge", "."),
        *("dir-merge .rules", ": .rules", ":n- .rules", ":C", "dir-merge,C", ":", ":_x", "dir-merge_x"),
        *("!", "clear", "! x", "!,", "clear,", "clear x", "clear_"),
        *("-C", "-C x", "+C x", "exclude,C", "-sC x", "-,C x"),
    ],
)
def test_rules_that_read_files_or_clear_others_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"which is not allowed|read its \.cvsignore"):
        filters.parse_rule(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-", "+", "- ", "-_", "exclude", "exclude ", "H ", "-s", "-s "),
        *(" - x", "\t- x", "x", "*.tmp", "# comment", "; x", "exclude\tx", "excludes x", "Exclude x", "h x"),
        *("-foo", "-- x", "-+ x", "-n x", "-w x", "-e x", "-q x", "Hs x", "Sr x", "Ps x", "show,s x", "--exclude=x"),
        *("- a\nb", "- a\rb", "- a\0b", "- a\n. /etc/passwd", "- a\x0b", "- a\x1b[2J", "- a\x85", "- a\u2028b"),
        *("-\n x", "- \ud800", "- " + "x" * 4001, "- " + "\u00fc" * 2001),
    ],
)
def test_rules_that_rsync_would_refuse_or_misread_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        filters.parse_rule(text)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("*.log", "- *.log"),
        ("/var/cache/***", "- /var/cache/***"),
        (" leading", "-  leading"),
        ("trailing ", "- trailing "),
        ("_x", "- _x"),
        ("-x", "- -x"),
        ("+", "- +"),
        ("-", "- -"),
        ("!x", "- !x"),
        ("- x", "- x"),
        ("+ x", "+ x"),
        ("- - x", "- - x"),
        ("- !", "- !"),
        (". /etc/passwd", "- . /etc/passwd"),
        ("merge x", "- merge x"),
        ("#x", "- #x"),
    ],
)
def test_an_exclude_has_one_reading(text: str, printed: str) -> None:
    exclude = filters.parse_exclude(text)
    assert exclude.text == printed
    assert filters.parse_rule(printed) == exclude


@pytest.mark.parametrize("text", ["", "!", "- ", "+ ", "a\nb", "a\n+ *", "a\r", "\0", "\ud800", "x" * 4001])
def test_excludes_that_clear_or_hide_rules_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        filters.parse_exclude(text)


def expand(rules: Sequence[str], sets: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    return filters.expand(rules, (sets or {}).get)


def test_sets_take_the_place_of_the_rules_that_name_them() -> None:
    sets = {"caches": ["- /var/cache/***", "merge logs", "- z"], "logs": ["exclude *.log"]}
    assert expand(["+ a", "merge caches", "- b"], sets) == ["+ a", "- /var/cache/***", "- *.log", "- z", "- b"]
    assert expand([". logs"], sets) == expand(["._logs"], sets) == expand(["merge_logs"], sets) == ["- *.log"]


def test_a_set_counts_once_also_when_sets_name_each_other() -> None:
    sets = {"one": ["- 1", "merge two"], "two": ["- 2", "merge one", "merge two"]}
    assert expand(["merge two", "merge one", "merge two"], sets) == ["- 2", "- 1"]


def test_a_name_may_have_blanks_inside() -> None:
    assert expand(["merge my set"], {"my set": ["- x"]}) == ["- x"]


@pytest.mark.parametrize("rule", ["merge", "merge ", ".", ". ", "merge,- logs", ".- logs", "merge,s logs"])
def test_a_merge_names_a_set_and_nothing_else(rule: str) -> None:
    with pytest.raises(InvalidValue, match="names no filter set"):
        expand([rule], {"logs": [], "": [], "- logs": []})


def test_an_unknown_set_is_named() -> None:
    with pytest.raises(InvalidValue, match="no filter set '/etc/passwd'"):
        expand(["merge /etc/passwd"])


def test_a_mistake_inside_a_set_is_named_with_it() -> None:
    with pytest.raises(InvalidValue, match="filter set 'outer': filter set 'inner'"):
        expand(["merge outer"], {"outer": ["merge inner"], "inner": [": .rules"]})


def test_nesting_is_bounded() -> None:
    sets = {str(depth): [f"merge {depth + 1}"] for depth in range(1000)}
    with pytest.raises(InvalidValue, match="levels deep"):
        expand(["merge 0"], sets)


def test_the_number_of_rules_is_bounded() -> None:
    sets = {str(number): ["- x"] * 1001 for number in range(10)}
    assert len(expand(["merge 0"], sets)) == 1001
    with pytest.raises(InvalidValue, match="more than 10000 rules"):
        expand([f"merge {number}" for number in range(10)], sets)


def test_no_expanded_rule_names_a_file() -> None:
    for rule in expand(["merge a"], {"a": ["- . x", "+ : y"]}):
        assert rule[0] in "-+"
