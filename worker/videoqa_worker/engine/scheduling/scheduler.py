"""Who has a seat: rows join when there is room, and leave when they are done or have to wait again.

At most one prompt is on its way in, or several that wait for the same beginning. How many rows there
can be is learnt from running out of memory. Knows nothing of passes.
"""

from __future__ import annotations

from collections.abc import Callable

from videoqa.errors import EngineStopped
from videoqa_worker.engine.failures import STOPPED
from videoqa_worker.engine.kvcache.allocator import Layout
from videoqa_worker.engine.kvcache.slots import Seat, Spot
from videoqa_worker.engine.model.loading import Loaded
from videoqa_worker.engine.request import Ticket
from videoqa_worker.engine.scheduling.request_queue import WaitingRoom
from videoqa_worker.engine.sequence.controls import Row
from videoqa_worker.engine.sequence.prefill import Prompt, Prompts
from videoqa_worker.settings import EngineConfig

__all__ = ["Scheduler"]

_MORE_AFTER = 64
"""Answers. A row too many costs one prompt again, and what was kept."""


class Scheduler:
    """Of one model's rows, on the engine's thread."""

    def __init__(
        self,
        loaded: Loaded,
        layout: Layout,
        prompts: Prompts,
        config: EngineConfig,
        stopping: Callable[[], bool],
    ) -> None:
        self._loaded, self._config, self._stopping = loaded, config, stopping
        self._layout, self._seats, self._prompts = layout, layout.seats, prompts
        self.packs = config.pack_from_tokens is not None and not config.batch_invariant
        """Rows that begin alike sit together."""
        self.again: list[Ticket] = []
        """They go back to wait."""
        self._most_rows = config.max_batch
        """Fewer once more did not fit into the device's memory; one more after every so many answers,
        since what did not fit may have been one long prompt."""
        self._answers = 0
        """Since there were fewer rows."""

    def schedule(self, room: WaitingRoom) -> bool:
        """Who is done leaves, who fits comes in; waits if nobody is there. False if the room is closed."""
        for seat in self._seats.all:
            if seat.prompt is not None:
                seat.row.poll()  # running rows are asked with each token
        for seat in self._seats.all:
            self.settle(seat)
        if self.again:
            room.put_back(self.again)
            self.again = []
        while (ticket := room.take(self._fits, wait=not self._seats)) is not None:
            self._join(ticket)
        return bool(self._seats)

    def _fits(self, ticket: Ticket) -> bool:
        if not self._seats:
            return True
        rows, filling = self._seats.all, self._seats.filling
        if self._alone(ticket) or self._alone(rows[0].ticket) or len(rows) >= self._most_rows:
            return False
        spot = self._spot(ticket)
        return spot is not None and (not filling or spot.slot is filling[0].slot)

    def _alone(self, ticket: Ticket) -> bool:
        """Also who needs longer slots than all others, where the shape of a pass must not change."""
        too_long = self._config.batch_invariant and ticket.most_tokens >= self._layout.usual_length
        return ticket.alone or too_long

    def _spot(self, ticket: Ticket) -> Spot | None:
        key, shared = self._prompts.beginning(ticket) if self.packs else (b"", 0)
        if shared < (self._config.pack_from_tokens or 0):
            key, shared = b"", 0
        return self._seats.spot(ticket, key, shared, self._layout.tokens)

    def _join(self, ticket: Ticket) -> None:
        if not ticket.start():
            return
        spot = self._spot(ticket)
        assert spot is not None  # noqa: S101 - it fits
        row = Row(ticket, self._loaded.tokenizer, self._loaded.eos)
        # It takes memory of the device only when its prompt is about to be computed.
        seat = self._seats.take(spot, row, Prompt(ticket.prompt_tokens))
        row.poll()
        self.settle(seat)

    def settle(self, seat: Seat) -> None:
        """Delivers a row that is done, and frees its seat."""
        row = seat.row
        if not row.done and self._stopping():
            row.error = EngineStopped(STOPPED)
        if not row.done or seat not in self._seats:  # it left with another, and will come again
            return
        self.leave(seat)
        if row.error is not None:
            seat.ticket.future.set_exception(row.error)
        else:
            seat.ticket.future.set_result(row.generated())
            self._answers += 1
            if self._answers >= _MORE_AFTER and self._most_rows < self._config.max_batch:
                self._most_rows, self._answers = self._most_rows + 1, 0

    def fewer(self, rows: int) -> None:
        self._most_rows, self._answers = rows, 0

    def leave(self, seat: Seat) -> None:
        """Frees a seat. Who waited for what it was to write goes back to wait."""
        slot = seat.slot
        others = slot.seats[1:] if seat is slot.seats[0] and not slot.written else []
        self.again += [other.ticket for other in others]
        for one in (seat, *others):
            self._layout.vacate(one)

    def close(self) -> None:
        """Ends all rows with EngineStopped."""
        for ticket in (*(seat.ticket for seat in self._seats.all), *self.again):
            if not ticket.future.done():
                ticket.future.set_exception(EngineStopped(STOPPED))
        self._seats.clear()
        self.again.clear()
