"""Who waits, and who runs together next.

First come, first served, but that a patient request lets those pass that came within its patience:
nobody waits for ever. Whoever is first is always in the next batch. Others join it if they fit:
prompts of similar length (padding is work for nothing), no more rows and tokens than allowed, and
nobody who asked to be alone. Who is no longer wanted leaves.
"""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections.abc import Callable, Sequence

from videoqa_worker.engine.request import Ticket
from videoqa_worker.settings import EngineConfig

__all__ = ["WaitingRoom", "choose", "padded_tokens"]


def padded_tokens(tickets: Sequence[Ticket]) -> int:
    """Positions of the KV cache that these rows need together."""
    prompt = max(ticket.prompt_tokens for ticket in tickets)
    answer = max(ticket.request.generation.max_new_tokens for ticket in tickets)
    return len(tickets) * (prompt + answer)


def choose(waiting: Sequence[Ticket], config: EngineConfig, max_tokens: int) -> list[Ticket]:
    """The next batch out of `waiting`, oldest first."""
    first, *others = waiting
    batch = [first]
    if first.alone:
        return batch
    for ticket in others:
        if len(batch) >= config.max_batch:
            break
        lengths = [one.prompt_tokens for one in (*batch, ticket)]
        similar = max(lengths) <= config.length_ratio * min(lengths)
        if similar and not ticket.alone and padded_tokens([*batch, ticket]) <= max_tokens:
            batch.append(ticket)
    return batch


class WaitingRoom:
    """The queue between the callers' threads and the engine's."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._waiting: list[Ticket] = []
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, ticket: Ticket) -> bool:
        """Queues a ticket; False if the room is closed."""
        with self._changed:
            if not self._closed:
                insort(self._waiting, ticket, key=lambda one: one.turn_s)
                self._changed.notify()
            return not self._closed

    def next_batch(self, max_tokens: int) -> list[Ticket]:
        """Waits for a batch; an empty one says that the room is closed."""
        batch: list[Ticket] = []
        while not batch and not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._closed:
                    self._gather()
                unwanted = self._unwanted()
                if self._waiting and not self._closed:
                    batch = choose(self._waiting, self._config, max_tokens)
                    self._waiting = [ticket for ticket in self._waiting if ticket not in batch]
            _end(unwanted)
        return batch

    def take(self, fits: Callable[[Ticket], bool], *, wait: bool) -> Ticket | None:
        """The first ticket, if it fits: nobody overtakes it. None also if the room is closed.

        Arguments:
            wait: for a first ticket, if there is none.
        """
        while True:
            with self._changed:
                if wait:
                    self._changed.wait_for(lambda: self._waiting or self._closed)
                unwanted = self._unwanted()
                first = self._waiting[0] if self._waiting and not self._closed else None
                taken = first is not None and fits(first)
                if taken:
                    self._waiting.pop(0)
            _end(unwanted)
            if first is not None or not wait or self._closed:
                return first if taken else None

    def put_back(self, tickets: Sequence[Ticket]) -> None:
        """They come first again."""
        with self._changed:
            for ticket in tickets:
                ticket.turn_s = float("-inf")
            self._waiting[:0] = tickets

    def close(self) -> list[Ticket]:
        """Lets nobody in any more; returns those who still waited."""
        with self._changed:
            self._closed = True
            left, self._waiting = self._waiting, []
            self._changed.notify_all()
            return left

    def _unwanted(self) -> list[tuple[Ticket, Exception]]:
        """Takes those out whose callers want no answer any more."""
        found = [(ticket, error) for ticket in self._waiting if (error := ticket.unwanted())]
        for ticket, _ in found:
            self._waiting.remove(ticket)
        return found

    def _gather(self) -> None:
        """Gives the others of a burst a moment, counted from when the oldest came."""
        first = self._waiting[0]
        left_s = first.arrived_s + self._config.batch_wait_s - time.monotonic()
        if left_s > 0 and not first.alone:
            full = self._config.max_batch
            self._changed.wait_for(lambda: len(self._waiting) >= full or self._closed, left_s)


def _end(unwanted: list[tuple[Ticket, Exception]]) -> None:
    """Not under the lock: futures have callbacks."""
    for ticket, error in unwanted:
        if ticket.start():
            ticket.future.set_exception(error)
