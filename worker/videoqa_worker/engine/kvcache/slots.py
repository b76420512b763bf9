"""Who sits where in the cache: one row a slot, or several that begin alike.

Rows about the same pictures have the same prompt up to the last picture. Its keys and values lie
once, at the beginning of a slot, written by the first of them; behind them each row has a region of
its own for the rest of its prompt and for its answer. Every row sees the beginning and its own region,
so it is as if it were alone there, and a decode step reads the beginning once for all of them.

Slots with several rows come first, a slot whose first prompt is on its way in is the last: so a
step reads one or two stretches of slots. Knows nothing of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from videoqa_worker.engine.kvcache.positions import Last, Place
from videoqa_worker.engine.request import PendingRequest
from videoqa_worker.engine.sequence.controls import Row
from videoqa_worker.engine.sequence.logits import Shaping
from videoqa_worker.engine.sequence.prefill import Prompt
from videoqa_worker.engine.sequence.sampler import Sampler

__all__ = ["LENGTHS", "Seat", "Seats", "Slot", "Spot"]

LENGTHS = 64
"""Slots are a multiple of it long, so that they seldom have to be arranged anew."""


@dataclass(eq=False)
class Slot:
    """A stretch of the cache."""

    key: bytes
    """Of what its rows have in common; empty: it is for one row."""
    shared: int
    """Positions at its beginning that all of its rows see."""
    seats: list[Seat] = field(default_factory=list)
    written: bool = False
    """What is shared is there; before that, the others wait for the first row."""
    packed: bool = False
    """Has or had several rows."""

    @property
    def rank(self) -> int:
        """Several rows, one row, none yet."""
        if self.packed:
            return 0
        return 1 if any(seat.prompt is None for seat in self.seats) else 2

    @property
    def used(self) -> int:
        """Positions up to the last one written."""
        shared = self.shared if self.written else 0
        return max([shared, *(seat.at for seat in self.seats if seat.length)])

    def gap(self, room: int) -> int:
        """Where a region of so many positions can begin."""
        start = self.shared
        for seat in sorted(self.seats, key=lambda one: one.start):
            if seat.start - start >= room:
                return start
            start = max(start, seat.end)
        return start


@dataclass(frozen=True)
class Spot:
    """Where a row could sit."""

    slot: Slot
    start: int
    room: int

    @property
    def end(self) -> int:
        return self.start + self.room


@dataclass(eq=False)
class Seat:
    """A row and its place."""

    row: Row
    prompt: Prompt | None
    """What is still on its way in."""
    slot: Slot
    start: int
    """Where its own region begins."""
    room: int
    """Positions of its own region."""
    begun: bool = False
    """Has what it needs on the device."""
    length: int = 0
    """Positions of prompt and answer that are there, the shared ones with them."""
    sampler: Sampler | None = None
    shaping: Shaping | None = None

    @property
    def ticket(self) -> PendingRequest:
        return self.row.ticket

    @property
    def end(self) -> int:
        """Behind its region."""
        return self.start + self.room

    @property
    def at(self) -> int:
        """Where its next position goes."""
        return self.start + self.length - self.slot.shared

    @property
    def last(self) -> Last:
        return Last(self.row.tokens[-1], self.at, self.start, self.slot.shared)

    def take(self, token: int) -> None:
        """Adds a token to its answer."""
        if self.shaping is not None:
            self.shaping.add(token)
        self.row.take(token)

    def undo(self) -> None:
        """The step is lost: what was drawn in it will be drawn again, with the same luck."""
        if self.sampler is not None and self.sampler.draws > len(self.row.tokens):
            self.sampler.undo()


class Seats:
    """All of them, in the order in which they were taken."""

    def __init__(self) -> None:
        self._seats: list[Seat] = []
        self.slots: list[Slot] = []
        """Slot n is the cache's."""

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, seat: Seat) -> bool:
        return seat in self._seats

    @property
    def all(self) -> list[Seat]:
        return [*self._seats]

    @property
    def running(self) -> list[Seat]:
        return [seat for seat in self._seats if seat.prompt is None]

    @property
    def filling(self) -> list[Seat]:
        """Those whose prompts are on their way in, all of one slot."""
        return [seat for seat in self._seats if seat.prompt is not None]

    def spot(self, ticket: PendingRequest, key: bytes, shared: int, tokens: int) -> Spot | None:
        """Where a row can sit if the cache has room for so many positions: beside one that begins
        alike, else in a slot of its own; None: nowhere now.

        Arguments:
            key: of the beginning, which is `shared` positions long; empty: it sits by itself.
        """
        room = ticket.max_tokens - shared
        alike = [slot for slot in self.slots if key and slot.key == key]
        for slot in (*alike, Slot(key, shared)):
            found = Spot(slot, slot.gap(room), room)
            count = len(self.slots) + (slot not in alike)
            if count * self.length(found) <= tokens:
                return found
        return None

    def place(self, seat: Seat) -> Place:
        return Place(self.slots.index(seat.slot), seat.start, seat.slot.shared)

    def length(self, more: Spot | None = None) -> int:
        """Positions that each slot has to have, with one for scratch."""
        ends = [seat.end for seat in self._seats]
        longest = max([*ends, more.end] if more else ends, default=0) + 1
        return -(-longest // LENGTHS) * LENGTHS

    def take(self, spot: Spot, row: Row, prompt: Prompt) -> Seat:
        seat = Seat(row, prompt, spot.slot, spot.start, spot.room)
        if spot.slot not in self.slots:
            self.slots.append(spot.slot)
        spot.slot.seats.append(seat)
        self._seats.append(seat)
        return seat

    def place_packed(self, slot: Slot) -> tuple[int, int]:
        """Where it is, and where it has to be with several rows: the slot there changes places with it."""
        now = self.slots.index(slot)
        return now, now if slot.packed else sum(one.packed for one in self.slots)

    def pack(self, slot: Slot) -> None:
        """It has several rows from here on."""
        now, then = self.place_packed(slot)
        slot.packed = True
        self.slots[then], self.slots[now] = slot, self.slots[then]

    def leave(self, seat: Seat) -> list[tuple[int, int]]:
        """Frees a seat; returns which slots move where (from, to), one after the other."""
        self._seats.remove(seat)
        slot = seat.slot
        slot.seats.remove(seat)
        moves: list[tuple[int, int]] = []
        if slot.seats:
            return moves
        hole = self.slots.index(slot)
        for rank in range(3):  # the last of each kind closes the hole that the kind before left
            last = max((n for n, one in enumerate(self.slots) if one.rank == rank), default=-1)
            if last > hole:
                moves.append((last, hole))
                self.slots[hole] = self.slots[last]
                hole = last
        self.slots.pop()
        return moves

    def clear(self) -> None:
        self._seats.clear()
        self.slots.clear()

    def stretches(self, most_filled: int = 0) -> list[tuple[int, list[list[Seat]]]]:
        """The running rows of each slot, by stretches of slots that are read together, each with the
        number of its first slot.

        Arguments:
            most_filled: slots with several rows and with one are read together if that takes no more
                positions, those with it that only fill up the others' slots.
        """
        found: list[tuple[int, list[list[Seat]]]] = []
        rows = [[seat for seat in slot.seats if seat.prompt is None] for slot in self.slots]
        packed = sum(slot.packed for slot in self.slots)
        if len(rows) * max(map(len, rows), default=0) <= most_filled:
            packed = len(rows)
        for first, part in ((0, rows[:packed]), (packed, rows[packed:])):
            while part and not part[-1]:
                part.pop()
            if part:
                found.append((first, part))
        return found
