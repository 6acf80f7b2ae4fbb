"""Counts of durations and sizes: the same ones, however they come in and whenever they are read."""

import sys
import threading

from hypothesis import given
from hypothesis import strategies as st

from ksz_router.daemon.histogram import Histogram

BOUNDS = (1.0, 2.0, 5.0)
VALUES = st.one_of(st.sampled_from([0, 1000, 1001, 2000, 5000, 5001]), st.integers(0, 9_000))


def read(histogram: Histogram) -> tuple[list[int], list[tuple[str, float]], float]:
    return histogram.counts, histogram.buckets(), histogram.total


@given(st.lists(st.tuples(VALUES, st.booleans())))
def test_what_is_noted_counts_like_what_is_observed(values: list[tuple[int, bool]]) -> None:
    """Before and after it is folded in; a value on a bound is within it."""
    observed, noted = Histogram(BOUNDS, 1_000), Histogram(BOUNDS, 1_000)
    for value, is_fold_due in values:
        observed.observe(value)
        noted.note(value)
        assert read(noted) == read(observed)
        if is_fold_due:
            noted.fold()
            assert read(noted) == read(observed)
    ends = [1000, 2000, 5000, 1 << 60]
    within = [sum(value <= end for value, _ in values) for end in ends]
    assert [count for _, count in noted.buckets()] == within


def test_one_thread_counts_while_another_reads() -> None:
    """Nothing is lost, counted twice, or taken back."""
    histogram, is_over, totals, count = Histogram(BOUNDS), threading.Event(), [0], 30_000

    def watch() -> None:
        while not is_over.is_set():
            totals.append(sum(histogram.counts))

    reader, interval = threading.Thread(target=watch), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        reader.start()
        for number in range(count):
            histogram.note(number % 7)
            if number % 11 == 0:
                histogram.fold()
    finally:
        is_over.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert totals == sorted(totals)
    assert sum(histogram.counts) == count
    assert histogram.total == sum(number % 7 for number in range(count))
