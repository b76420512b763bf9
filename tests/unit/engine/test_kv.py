"""The slot cache: KV survives every rearrangement of the slots."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videoqa_worker.engine.kvcache.slot_cache import SlotCache

SHAPE = 2, 3, 4
"""Layers, heads, dim."""


def cache(tokens: int) -> SlotCache:
    return SlotCache(SHAPE, tokens, torch.float32, torch.device("cpu"))


def write(slots: SlotCache, slot: int, start: int, count: int) -> None:
    for layer in range(SHAPE[0]):
        keys = 1 + torch.rand(1, SHAPE[1], count, SHAPE[2])
        slots.for_prefill(slot, start).update(keys, -keys, layer)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=5),
    st.lists(st.integers(20, 200), min_size=1, max_size=6),
)
def test_sequences_keep_their_kv_through_any_arrangement(
    counts: list[int], lengths: list[int]
) -> None:
    slots = cache(1000)
    slots.arrange(20, [])
    for slot, count in enumerate(counts):
        write(slots, slot, 0, count)
    before = [slots.save(slot, count) for slot, count in enumerate(counts)]
    for length in lengths:
        slots.arrange(length, counts)
        assert (slots.slots, slots.length) == (1000 // length, length)
    for slot, count in enumerate(counts):
        for was, now in zip(before[slot], slots.save(slot, count), strict=True):
            assert torch.equal(was, now)


def test_memory_that_runs_out_while_slots_are_arranged_costs_no_sequence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slots = cache(1000)
    slots.arrange(64, [])
    write(slots, 0, 0, 30)
    write(slots, 1, 0, 64)
    before = [slots.save(0, 30), slots.save(1, 64)]
    plain, taken = torch.empty, 0

    def full(*size: Any, **settings: Any) -> torch.Tensor:
        nonlocal taken
        taken += 1
        if taken > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(*size, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", full)
        with pytest.raises(torch.OutOfMemoryError):
            slots.arrange(200, [30, 64])
    assert (slots.slots, slots.length) == (15, 64)
    after = [slots.save(0, 30), slots.save(1, 64)]
    assert all(
        torch.equal(*pair)
        for was, now in zip(before, after, strict=True)
        for pair in zip(was, now, strict=True)
    )


def test_a_wiped_slot_holds_zeros_where_its_sequence_and_scratch_were() -> None:
    slots = cache(100)
    slots.arrange(20, [])
    for slot in range(3):
        write(slots, slot, 0, 20)
    others = [slots.save(0, 20), slots.save(2, 20)]
    slots.wipe(1, 3, 12)
    for kept in slots.save(1, 20):
        assert kept[:, :3].all()
        assert not kept[:, 3:12].any()
        assert not kept[:, -1].any()
        assert kept[:, 12:-1].all()
    after = [slots.save(0, 20), slots.save(2, 20)]
    assert all(
        torch.equal(*pair)
        for was, now in zip(others, after, strict=True)
        for pair in zip(was, now, strict=True)
    )


def test_what_moves_leaves_nothing_behind() -> None:
    """KV may be NaN that no check has seen yet."""
    slots = cache(1000)
    slots.arrange(20, [])
    for slot in range(3):
        write(slots, slot, 0, 12)
        write(slots, slot, 19, 1)  # scratch

    def held() -> int:
        return sum(int(view.count_nonzero()) for view in slots._views)

    a_position = held() // (3 * 13)
    slots.move(2, 0, 12)
    assert held() == a_position * (12 + 12 + 2)
    slots.swap(0, 1, 12)
    assert held() == a_position * (12 + 12)
    slots.arrange(64, [12, 12])
    assert held() == a_position * (12 + 12)


def test_slots_change_places_with_all_of_their_kv() -> None:
    slots = cache(100)
    slots.arrange(20, [])
    for slot in range(3):
        write(slots, slot, 0, 19)
    before = [slots.save(n, 19) for n in range(3)]
    slots.swap(0, 2, 19)
    after = [slots.save(n, 19) for n in (2, 1, 0)]
    assert all(
        torch.equal(*pair)
        for was, now in zip(before, after, strict=True)
        for pair in zip(was, now, strict=True)
    )
