"""Whatever comes in as filter rules, what goes to rsync reads no file, clears no rule and means the same twice."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from turku.errors import InvalidValue
from turku.policy import filters

prefixes = st.sampled_from(
    [
        *("-", "+", "H", "S", "P", "R", ".", ":", "!", "exclude", "include", "hide", "show", "protect", "risk"),
        *("merge", "dir-merge", "clear", "", " "),
    ]
)
modifiers = st.text(",/!Csrpxnwe-+", max_size=3)
patterns = st.text(" _*?/.-+!#:[]ab\\é\t\n\0", max_size=8)
rule_like = st.builds("{}{}{}{}".format, prefixes, modifiers, st.sampled_from([" ", "_", ""]), patterns)
any_rule = rule_like | st.text(st.characters(), max_size=20)


@given(any_rule)
def test_a_printed_rule_is_harmless_and_reads_back_as_itself(text: str) -> None:
    try:
        rule = filters.parse_rule(text)
    except InvalidValue:
        return
    printed = rule.text
    assert filters.parse_rule(printed) == rule
    assert printed[0] in "-+HSPR"
    prefix, pattern = printed.split(" ", 1)
    assert set(prefix[1:]) <= set("/!srpx")
    assert pattern == rule.pattern != ""
    assert not set(printed) & set("\n\r\0")
    assert text.endswith(pattern)


@given(patterns | any_rule)
def test_an_exclude_is_one_rule_on_names(text: str) -> None:
    try:
        exclude = filters.parse_exclude(text)
    except InvalidValue:
        return
    assert text != "!"
    assert filters.parse_rule(exclude.text) == exclude
    expected = text if text.startswith(("- ", "+ ")) else f"- {text}"
    assert exclude.text == expected


@given(
    st.lists(any_rule | st.sampled_from(["merge a", ". b", "merge c"]), max_size=5),
    st.dictionaries(st.sampled_from("abc"), st.lists(any_rule | st.sampled_from(["merge a", "._b"]), max_size=4)),
)
def test_an_expansion_has_only_harmless_rules(rules: list[str], sets: dict[str, list[str]]) -> None:
    asked: list[str] = []

    def find(name: str) -> list[str] | None:
        asked.append(name)
        return sets.get(name)

    with contextlib.suppress(InvalidValue):
        for rule in filters.expand(rules, find):
            assert filters.parse_rule(rule).text == rule
    assert len(asked) == len(set(asked)), "each set is asked for once"


@given(st.lists(rule_like.filter(lambda text: not text.startswith((".", "merge"))), max_size=6))
def test_rules_without_sets_are_those_that_each_is_alone(rules: list[str]) -> None:
    def alone(text: str) -> str | None:
        try:
            return filters.parse_rule(text).text
        except InvalidValue:
            return None

    expected = [alone(rule) for rule in rules]
    try:
        assert filters.expand(rules, lambda _name: None) == expected
    except InvalidValue:
        assert None in expected
