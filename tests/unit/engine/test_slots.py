"""Where rows sit: no two regions overlap, and slots stay in the order in which a step reads them."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from videoqa_worker.engine.kvcache.slots import LENGTHS, Seat, Seats
from videoqa_worker.engine.sequence.prefill import Prompt

TOKENS = 4000


class _Ticket:
    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens


class _Row:
    def __init__(self, ticket: _Ticket) -> None:
        self.ticket = ticket


def joined(seats: Seats, key: bytes, shared: int, rest: int) -> Seat | None:
    """As the runner does it: who is alike waits until the first has written, then packs."""
    ticket: Any = _Ticket(shared + rest)
    spot = seats.spot(ticket, key, shared, TOKENS)
    if spot is None:
        return None
    row: Any = _Row(ticket)
    seat = seats.take(spot, row, Prompt(shared + rest))
    if spot.slot.written:
        seats.pack(spot.slot)
    spot.slot.written = bool(key)
    seat.prompt, seat.length = None, shared + 1
    return seat


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 3), st.integers(2, 300)),
        st.tuples(st.just("leave"), st.integers(0, 20), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(STEPS)
def test_regions_never_overlap_and_moves_say_where_slots_went(steps: list[Any]) -> None:
    seats = Seats()
    memory: list[Any] = []  # slot n of the cache: which Slot's positions it holds
    for kind, number, rest in steps:
        if kind == "join":
            before = [*seats.slots]
            seat = joined(seats, bytes([number]) if number else b"", 50 * number, rest)
            if seat is None:
                continue
            if seat.slot not in before:
                memory[len(before) :] = [seat.slot]
            elif [*seats.slots] != before:  # two have changed places
                memory[: len(before)] = seats.slots
        elif seats:
            seat = seats.all[number % len(seats)]
            for source, target in seats.leave(seat):
                memory[target] = memory[source]
        check(seats)
        assert memory[: len(seats.slots)] == seats.slots


def check(seats: Seats) -> None:
    assert [slot.rank for slot in seats.slots] == sorted(slot.rank for slot in seats.slots)
    assert {id(seat.slot) for seat in seats.all} == {id(slot) for slot in seats.slots}
    length = seats.length()
    assert length % LENGTHS == 0
    if len(seats.slots) > 1:
        assert length * len(seats.slots) <= TOKENS
    for slot in seats.slots:
        regions = sorted((seat.start, seat.end) for seat in slot.seats)
        assert regions[0][0] >= slot.shared
        assert all(before[1] <= after[0] for before, after in zip(regions, regions[1:]))  # noqa: B905, RUF007
        assert regions[-1][1] < length, "the last position is scratch"
    running = [seat for _, rows in seats.stretches() for slot in rows for seat in slot]
    assert sorted(map(id, running)) == sorted(map(id, seats.running))


def test_a_region_that_was_left_is_used_again() -> None:
    seats = Seats()
    first, second, third = (joined(seats, b"k", 100, 30) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert [seat.start for seat in (first, second, third)] == [100, 130, 160]
    seats.leave(second)
    small, large = joined(seats, b"k", 100, 20), joined(seats, b"k", 100, 31)
    assert small is not None
    assert large is not None
    assert (small.start, large.start) == (130, 190)
    assert seats.stretches() == [(0, [[first, third, small, large]])]


def test_one_slot_serves_rows_that_begin_alike_until_it_would_be_too_long() -> None:
    seats = Seats()
    found = [joined(seats, b"k", 100, 900) for _ in range(6)]
    assert [seat.slot is found[0].slot for seat in found if seat and found[0]] == [True] * 4
    assert found[4:] == [None, None]


def test_slots_with_one_row_and_with_several_are_read_together_where_that_is_free() -> None:
    seats = Seats()
    single = joined(seats, b"a", 10, 20)
    pair = [joined(seats, b"b", 10, 20) for _ in range(2)]
    assert seats.stretches() == [(0, [pair]), (1, [[single]])]
    assert seats.stretches(most_filled=3) == [(0, [pair]), (1, [[single]])]
    assert seats.stretches(most_filled=4) == [(0, [pair, [single]])]
