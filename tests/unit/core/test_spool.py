"""Collections that take a bounded amount of memory."""

import random
import tracemalloc
from pathlib import Path

from turku.core.filesystem.spool import BloomFilter, Spool, Stack


def test_a_stack_is_one_whether_or_not_it_fits_into_memory(tmp_path: Path) -> None:
    chance = random.Random(1)
    plain: list[bytes] = []
    with Stack(tmp_path, memory_bytes=2000) as stack:
        for number in range(20_000):
            if chance.random() < 0.55:
                plain.append(b"%d" % number * chance.randrange(1, 20))
                stack.push(plain[-1])
            else:
                assert stack.pop() == (plain.pop() if plain else None)
        while plain:
            assert stack.pop() == plain.pop()
        assert stack.pop() is None
    assert list(tmp_path.iterdir()) == []


def test_a_stack_of_any_size_takes_little_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        with Stack(tmp_path, memory_bytes=100_000) as stack:
            for _ in range(5000):
                stack.push(b"x" * 4000)
            assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()


def test_a_spool_gives_back_what_it_was_given(tmp_path: Path) -> None:
    items = [b"", b"a", b"\0" * 5000, b"\xff\n"]
    with Spool(tmp_path) as spool:
        assert list(spool) == []
        for item in items:
            spool.add(item)
        assert list(spool) == items
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_was_added_is_always_found_and_hardly_another_one() -> None:
    found = BloomFilter()
    for number in range(20_000):
        found.add(b"name %d" % number)
    assert all(b"name %d" % number in found for number in range(20_000))
    assert not any(b"other %d" % number in found for number in range(20_000))
