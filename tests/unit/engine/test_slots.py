"""Slot allocation: no two regions overlap, and slots stay in the order in which a step reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from videoqa_worker.engine.kvcache.slots import SLOT_STEP, SlotRegion, SlotTable

TOKENS = 4000


@dataclass(eq=False)
class One:
    """A sequence as slot allocation sees it."""

    region: SlotRegion[Any]
    prefill: object | None = "prompt"
    length: int = 0

    @property
    def write_position(self) -> int:
        return self.region.start + self.length - self.region.slot.prefix_length


Table = SlotTable[One]


def admit(table: Table, key: bytes, prefix: int, rest: int) -> One | None:
    """Admits a sequence as the runner does: others wait until the first has written the prefix, then pack."""
    region = table.find_region(prefix + rest, key, prefix, TOKENS)
    if region is None:
        return None
    sequence = One(region)
    table.add(sequence)
    if region.slot.is_written:
        table.mark_packed(region.slot)
    region.slot.is_written = bool(key)
    sequence.prefill, sequence.length = None, prefix + 1
    return sequence


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 3), st.integers(2, 300)),
        st.tuples(st.just("free"), st.integers(0, 20), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(STEPS)
def test_regions_never_overlap_and_moves_say_where_slots_went(steps: list[Any]) -> None:
    table = Table()
    memory: list[Any] = []  # slot n of the cache: which Slot's positions it holds
    for kind, number, rest in steps:
        if kind == "join":
            before = [*table.slots]
            sequence = admit(table, bytes([number]) if number else b"", 50 * number, rest)
            if sequence is None:
                continue
            if sequence.region.slot not in before:
                memory[len(before) :] = [sequence.region.slot]
            elif [*table.slots] != before:  # two have changed places
                memory[: len(before)] = table.slots
        elif table:
            sequence = table.sequences[number % len(table)]
            for source, target in table.remove(sequence):
                memory[target] = memory[source]
        check(table)
        assert memory[: len(table.slots)] == table.slots


def check(table: Table) -> None:
    assert [slot.rank for slot in table.slots] == sorted(slot.rank for slot in table.slots)
    assert {id(sequence.region.slot) for sequence in table.sequences} == {
        id(slot) for slot in table.slots
    }
    length = table.compute_slot_length()
    assert length % SLOT_STEP == 0
    if len(table.slots) > 1:
        assert length * len(table.slots) <= TOKENS
    for slot in table.slots:
        regions = sorted(
            (sequence.region.start, sequence.region.end) for sequence in slot.sequences
        )
        assert regions[0][0] >= slot.prefix_length
        assert all(before[1] <= after[0] for before, after in zip(regions, regions[1:]))  # noqa: B905, RUF007
        assert regions[-1][1] < length, "the last position is scratch"
    running = [
        sequence for _, slots in table.group_decoding() for slot in slots for sequence in slot
    ]
    assert sorted(map(id, running)) == sorted(map(id, table.decoding))


def test_a_freed_region_is_used_again() -> None:
    table = Table()
    first, second, third = (admit(table, b"k", 100, 30) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert [sequence.region.start for sequence in (first, second, third)] == [100, 130, 160]
    table.remove(second)
    small, large = admit(table, b"k", 100, 20), admit(table, b"k", 100, 31)
    assert small is not None
    assert large is not None
    assert (small.region.start, large.region.start) == (130, 190)
    assert table.group_decoding() == [(0, [[first, third, small, large]])]


def test_one_slot_serves_sequences_of_one_prefix_until_it_would_be_too_long() -> None:
    table = Table()
    found = [admit(table, b"k", 100, 900) for _ in range(6)]
    assert [
        sequence.region.slot is found[0].region.slot for sequence in found if sequence and found[0]
    ] == [True] * 4
    assert found[4:] == [None, None]


def test_packed_and_single_slots_are_read_together_where_that_is_free() -> None:
    table = Table()
    single = admit(table, b"a", 10, 20)
    pair = [admit(table, b"b", 10, 20) for _ in range(2)]
    assert table.group_decoding() == [(0, [pair]), (1, [[single]])]
    assert table.group_decoding(max_padded=3) == [(0, [pair]), (1, [[single]])]
    assert table.group_decoding(max_padded=4) == [(0, [pair, [single]])]
