"""Ranges are merged, split, never requested twice, and become all if they are most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from videoqa_worker.frames import Span, Spans
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import plan_ranges

CONFIG = SourceConfig(range_bytes=100, range_gap_bytes=10, whole_above=0.6)
SIZE = 1000


def planned(wanted: list[Span], present: list[Span] | None = None) -> list[Span]:
    return plan_ranges(wanted, Spans(present or ()), SIZE, CONFIG)


def test_neighbours_closer_than_the_gap_are_one_request() -> None:
    assert planned([(0, 10), (19, 30)]) == [(0, 30)]
    assert planned([(0, 10), (20, 30)]) == [(0, 10), (20, 30)]


def test_what_is_there_is_not_asked_for_again() -> None:
    assert planned([(0, 50)], [(10, 20)]) == [(0, 10), (20, 50)]
    assert planned([(0, 50)], [(0, 60)]) == []
    assert planned([(0, 10), (15, 25)], [(10, 15)]) == [(0, 10), (15, 25)]


def test_long_spans_are_split_into_equal_parts() -> None:
    assert planned([(0, 150)]) == [(0, 75), (75, 150)]
    assert planned([(300, 400)]) == [(300, 400)]


def test_spans_are_cut_at_the_ends_of_the_file() -> None:
    assert planned([(-5, 5), (990, 2000), (3000, 4000), (7, 7)]) == [(0, 5), (990, 1000)]


def test_most_of_a_file_is_all_of_it() -> None:
    assert sum(end - start for start, end in planned([(0, 600)])) == 600
    assert sum(end - start for start, end in planned([(0, 601)])) == SIZE
    there: list[Span] = [(0, 500)]
    assert sum(end - start for start, end in planned([(500, 1000)], there)) == 500


def test_most_of_a_file_is_not_all_of_it_if_all_is_more_than_may_come() -> None:
    limited = CONFIG.model_copy(update={"max_bytes": SIZE - 1})
    assert plan_ranges([(0, 700)], Spans(), SIZE, limited)[-1][1] == 700


edges = st.integers(-10, SIZE + 10)
spans = st.lists(st.tuples(edges, edges), max_size=8)


@given(spans, spans)
def test_any_plan_brings_all_that_is_wanted_and_nothing_twice(
    wanted: list[Span], there: list[Span]
) -> None:
    present = Spans([(max(0, start), min(end, SIZE)) for start, end in there])
    todo = plan_ranges(wanted, present, SIZE, CONFIG)
    brought = 0
    for start, end in todo:
        assert 0 <= start < end <= SIZE
        assert end - start <= CONFIG.range_bytes
        assert present.missing(start, end) == [(start, end)]
        present.add(start, end)
        brought += end - start
    assert brought == sum(end - start for start, end in todo)
    for start, end in wanted:
        assert present.covers(max(0, start), min(end, SIZE))
