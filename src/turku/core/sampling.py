"""Random samples of streams, for checks that cannot look at everything."""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def draw(items: Iterable[T], count: int) -> list[T]:
    """Return up to ``count`` of the items in random order. Each item is equally likely (reservoir sampling).

    The system's random numbers are used, so that nobody who controls the items can foresee which are checked.
    """
    source_of_chance = random.SystemRandom()
    drawn: list[T] = []
    for number, item in enumerate(items):
        if number < count:
            drawn.append(item)
        elif (place := source_of_chance.randrange(number + 1)) < count:
            drawn[place] = item
    source_of_chance.shuffle(drawn)
    return drawn


def share(items: Iterable[T], percent: float) -> Iterator[T]:
    """Yield each item with the given probability, in percent."""
    source_of_chance = random.SystemRandom()
    return (item for item in items if source_of_chance.random() * 100 < percent)


def within(items: Iterable[T], limit: int, size: Callable[[T], int]) -> Iterator[T]:
    """Yield the items whose sizes together stay within the limit. After one that is too large, a smaller may fit."""
    for item in items:
        if size(item) <= limit:
            limit -= size(item)
            yield item
