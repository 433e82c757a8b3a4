"""Space that several files share counts once, however many they are."""

from __future__ import annotations

from turku.storage.fs.disk_usage import _Union


def test_spans_that_overlap_or_repeat_count_once() -> None:
    union = _Union()
    for begin, end in [(10, 20), (10, 20), (15, 30), (40, 50), (30, 40), (100, 101)]:
        union.add(begin, end)
    assert union.length == 41


def test_memory_is_that_of_what_is_covered() -> None:
    union = _Union()
    for number in range(350_000):
        union.add(number % 7 * 10, number % 7 * 10 + 5)
    assert len(union._spans) <= 100_001
    assert union.length == 35
