"""Slot allocation in the KV cache; sequences with the same prefix share a slot.

Sequences about the same media have the same prompt up to the last picture. The KV of this prefix lies
once, at the beginning of a slot, written by the first of them; behind it each sequence has a region of
its own for the rest of its prompt and for its answer. Each attends to the prefix and to its own
region only, as if it were alone, and a decode step reads the prefix once for all of them.

Packed slots (several sequences) come first, a slot whose first prompt is in prefill comes last: so a
decode step reads one or two contiguous runs of slots. Knows nothing of tensors, nor of what a sequence
is beyond its region (`SlotUser`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from videoqa_worker.engine.kvcache.positions import KVPosition

__all__ = ["SLOT_STEP", "Slot", "SlotRegion", "SlotTable", "SlotUser"]

SLOT_STEP = 64
"""Slot lengths are a multiple of it, so that slots are seldom rearranged."""


class SlotUser(Protocol):
    """A sequence as slot allocation sees it."""

    @property
    def region(self) -> SlotRegion[Any]:
        """Its own positions in a slot."""

    @property
    def prefill(self) -> object | None:
        """State of its prompt; None once it decodes."""

    @property
    def length(self) -> int:
        """Positions written so far, the shared prefix included."""

    @property
    def write_position(self) -> int:
        """Position in the slot that it writes next."""


S = TypeVar("S", bound=SlotUser)


@dataclass(eq=False)
class Slot(Generic[S]):
    """A stretch of the KV cache for one sequence, or for several with the same prefix."""

    key: bytes
    """Digest of the shared prefix; empty: the slot holds one sequence only."""
    prefix_length: int
    """Positions at its beginning that all of its sequences attend to."""
    sequences: list[S] = field(default_factory=list)
    is_written: bool = False
    """The prefix is computed; until then the other sequences wait for the first."""
    is_packed: bool = False
    """Holds, or has held, several sequences."""

    @property
    def rank(self) -> int:
        """Order of slots in the cache: 0 packed, 1 a single decoding sequence, 2 still in prefill."""
        if self.is_packed:
            return 0
        return 1 if any(one.prefill is None for one in self.sequences) else 2

    @property
    def used(self) -> int:
        """Positions up to the last one written."""
        prefix = self.prefix_length if self.is_written else 0
        return max([prefix, *(one.write_position for one in self.sequences if one.length)])

    def find_gap(self, size: int) -> int:
        """Returns the first position at which a region of this size fits."""
        start = self.prefix_length
        for region in sorted((one.region for one in self.sequences), key=lambda one: one.start):
            if region.start - start >= size:
                return start
            start = max(start, region.end)
        return start


@dataclass(frozen=True)
class SlotRegion(Generic[S]):
    """Positions of a slot that belong to one sequence."""

    slot: Slot[S]
    start: int
    size: int

    @property
    def end(self) -> int:
        """Position behind the region."""
        return self.start + self.size


class SlotTable(Generic[S]):
    """The slots in use and their sequences, in order of admission."""

    def __init__(self) -> None:
        self._sequences: list[S] = []
        self.slots: list[Slot[S]] = []
        """In the order in which they lie in the cache."""

    def __len__(self) -> int:
        return len(self._sequences)

    def __contains__(self, sequence: S) -> bool:
        return sequence in self._sequences

    @property
    def sequences(self) -> list[S]:
        """All sequences."""
        return [*self._sequences]

    @property
    def decoding(self) -> list[S]:
        """Sequences whose prompt is complete."""
        return [one for one in self._sequences if one.prefill is None]

    @property
    def prefilling(self) -> list[S]:
        """Sequences whose prompt is not complete; all of them are in one slot."""
        return [one for one in self._sequences if one.prefill is not None]

    def find_region(
        self, max_tokens: int, key: bytes, prefix_length: int, available_tokens: int
    ) -> SlotRegion[S] | None:
        """Returns a region for a new sequence: in a slot with the same prefix, else in a slot of its own.

        None if the cache has no room for it now.

        Arguments:
            max_tokens: positions of its prompt and longest answer.
            key: digest of its prefix, which is `prefix_length` positions long; empty: it shares none.
            available_tokens: positions of the cache.
        """
        size = max_tokens - prefix_length
        alike = [slot for slot in self.slots if key and slot.key == key]
        for slot in (*alike, Slot[S](key, prefix_length)):
            region = SlotRegion(slot, slot.find_gap(size), size)
            count = len(self.slots) + (slot not in alike)
            if count * self.compute_slot_length(region) <= available_tokens:
                return region
        return None

    def locate(self, sequence: S) -> KVPosition:
        """Returns where the positions of a sequence lie in the cache."""
        region = sequence.region
        return KVPosition(self.slots.index(region.slot), region.start, region.slot.prefix_length)

    def compute_slot_length(self, added: SlotRegion[S] | None = None) -> int:
        """Returns the positions that each slot needs, also for a region that is `added`; one of them is scratch."""
        ends = [one.region.end for one in self._sequences]
        longest = max([*ends, added.end] if added else ends, default=0) + 1
        return -(-longest // SLOT_STEP) * SLOT_STEP

    def add(self, sequence: S) -> None:
        """Puts a sequence into its region."""
        slot = sequence.region.slot
        if slot not in self.slots:
            self.slots.append(slot)
        slot.sequences.append(sequence)
        self._sequences.append(sequence)

    def find_packed_index(self, slot: Slot[S]) -> tuple[int, int]:
        """Returns the slot's index and the one it needs once packed; the slot there takes its place."""
        now = self.slots.index(slot)
        return now, now if slot.is_packed else sum(one.is_packed for one in self.slots)

    def mark_packed(self, slot: Slot[S]) -> None:
        """Moves a slot to the packed ones."""
        now, then = self.find_packed_index(slot)
        slot.is_packed = True
        self.slots[then], self.slots[now] = slot, self.slots[then]

    def remove(self, sequence: S) -> list[tuple[int, int]]:
        """Frees a region; returns the moves of slots (from, to) that close the gap, in order."""
        self._sequences.remove(sequence)
        slot = sequence.region.slot
        slot.sequences.remove(sequence)
        moves: list[tuple[int, int]] = []
        if slot.sequences:
            return moves
        hole = self.slots.index(slot)
        for rank in range(3):  # the last slot of each rank closes the hole of the rank before
            last = max((n for n, one in enumerate(self.slots) if one.rank == rank), default=-1)
            if last > hole:
                moves.append((last, hole))
                self.slots[hole] = self.slots[last]
                hole = last
        self.slots.pop()
        return moves

    def clear(self) -> None:
        """Frees all regions."""
        self._sequences.clear()
        self.slots.clear()

    def group_decoding(self, max_padded: int = 0) -> list[tuple[int, list[list[S]]]]:
        """Returns the contiguous runs of slots that one pass reads.

        Each has the first slot's index, and the decoding sequences of each slot.

        Arguments:
            max_padded: packed and single slots form one run if that takes no more positions than this,
                padding included.
        """
        found: list[tuple[int, list[list[S]]]] = []
        sequences = [[one for one in slot.sequences if one.prefill is None] for slot in self.slots]
        packed = sum(slot.is_packed for slot in self.slots)
        if len(sequences) * max(map(len, sequences), default=0) <= max_padded:
            packed = len(sequences)
        for first, part in ((0, sequences[:packed]), (packed, sequences[packed:])):
            while part and not part[-1]:
                part.pop()
            if part:
                found.append((first, part))
        return found
