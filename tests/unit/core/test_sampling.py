"""Random samples of streams."""

from collections import Counter

from turku.core import sampling


def test_a_short_stream_is_drawn_whole_and_a_long_one_up_to_the_count() -> None:
    assert sorted(sampling.draw(range(5), 10)) == [0, 1, 2, 3, 4]
    drawn = sampling.draw(range(1000), 10)
    assert len(set(drawn)) == 10


def test_each_item_is_about_equally_likely() -> None:
    counts = Counter(item for _ in range(4000) for item in sampling.draw(range(8), 2))
    assert set(counts) == set(range(8))
    assert all(800 < count < 1200 for count in counts.values())


def test_nothing_is_drawn_of_nothing_and_for_a_count_of_none() -> None:
    assert sampling.draw([], 3) == []
    assert sampling.draw(range(9), 0) == []


def test_a_share_of_all_is_everything_and_of_none_nothing() -> None:
    assert list(sampling.share(range(50), 100)) == list(range(50))
    assert list(sampling.share(range(50), 0)) == []


def test_a_smaller_item_may_fit_after_one_that_is_too_large() -> None:
    assert list(sampling.within([5, 90, 3, 4], 10, lambda item: item)) == [5, 3]
