"""Spans behave like a plain set of byte offsets."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from videoqa_worker.frames import CompleteFile, Spans

edges = st.integers(0, 30)
spans = st.lists(st.tuples(edges, edges), max_size=12)


def numbers(of: list[tuple[int, int]]) -> set[int]:
    return {number for start, end in of for number in range(start, end)}


@given(spans)
def test_spans_are_sorted_and_neither_touch_nor_overlap(added: list[tuple[int, int]]) -> None:
    held = list(Spans(added))
    assert numbers(held) == numbers(added)
    assert all(start < end for start, end in held)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(held))
    assert Spans(added).total_bytes == len(numbers(added))


@given(spans, edges, edges)
def test_missing_is_what_is_asked_for_and_not_there(
    added: list[tuple[int, int]], start: int, end: int
) -> None:
    missing = Spans(added).missing(start, end)
    assert numbers(missing) == set(range(start, end)) - numbers(added)
    assert missing == sorted(missing)


@given(spans, edges, edges)
def test_covers_and_end_of_agree_with_the_bytes(
    added: list[tuple[int, int]], start: int, end: int
) -> None:
    held, there = Spans(added), numbers(added)
    assert held.covers(start, end) is (set(range(start, end)) <= there)
    stop = start
    while stop in there:
        stop += 1
    assert held.end_of(start) == stop


@given(spans)
def test_the_order_of_adding_does_not_matter(added: list[tuple[int, int]]) -> None:
    assert list(Spans(added)) == list(Spans(added[::-1]))


def test_a_local_file_is_all_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(10))
    file = CompleteFile(path)
    file.ensure([(0, 100)])
    assert (file.size_bytes, list(file.present)) == (10, [(0, 10)])
