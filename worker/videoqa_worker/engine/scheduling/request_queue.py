"""The request queue, and batch selection for padded `generate`.

First come, first served, except that later requests may pass a patient one within its patience: no
request waits for ever. The first request is always in the next batch. Others join it if they fit:
prompts of similar length (padding is wasted work), no more sequences and tokens than allowed, and
none that needs a batch of its own. Requests whose callers withdrew are removed.
"""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections.abc import Callable, Sequence

from videoqa_worker.engine.generation import PendingRequest
from videoqa_worker.settings import EngineConfig

__all__ = ["RequestQueue", "choose_batch", "count_padded_tokens"]


class RequestQueue:
    """The queue between the callers' threads and the engine's."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._waiting: list[PendingRequest] = []
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, pending: PendingRequest) -> bool:
        """Queues a request; returns False if the queue is closed."""
        with self._changed:
            if not self._closed:
                insort(self._waiting, pending, key=lambda one: one.rank_s)
                self._changed.notify()
            return not self._closed

    def next_batch(self, max_tokens: int) -> list[PendingRequest]:
        """Waits for a padded batch and returns it; an empty one if the queue is closed."""
        batch: list[PendingRequest] = []
        while not batch and not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._closed:
                    self._wait_for_burst()
                withdrawn = self._remove_withdrawn()
                if self._waiting and not self._closed:
                    batch = choose_batch(self._waiting, self._config, max_tokens)
                    self._waiting = [one for one in self._waiting if one not in batch]
            _fail_withdrawn(withdrawn)
        return batch

    def take(self, fits: Callable[[PendingRequest], bool], *, wait: bool) -> PendingRequest | None:
        """Returns the first request if it fits, since none overtakes it; None also if the queue is closed.

        Arguments:
            wait: for a first request, if there is none.
        """
        while True:
            with self._changed:
                if wait:
                    self._changed.wait_for(lambda: self._waiting or self._closed)
                withdrawn = self._remove_withdrawn()
                first = self._waiting[0] if self._waiting and not self._closed else None
                taken = first is not None and fits(first)
                if taken:
                    self._waiting.pop(0)
            _fail_withdrawn(withdrawn)
            if first is not None or not wait or self._closed:
                return first if taken else None

    def put_back(self, requests: Sequence[PendingRequest]) -> None:
        """Queues requests before all others."""
        with self._changed:
            for pending in requests:
                pending.rank_s = float("-inf")
            self._waiting[:0] = requests

    def close(self) -> list[PendingRequest]:
        """Accepts no more requests; returns those that still waited."""
        with self._changed:
            self._closed = True
            left, self._waiting = self._waiting, []
            self._changed.notify_all()
            return left

    def _remove_withdrawn(self) -> list[tuple[PendingRequest, Exception]]:
        """Removes the requests whose callers want no answer any more; returns them with their errors."""
        found = [
            (pending, error) for pending in self._waiting if (error := pending.find_withdrawal())
        ]
        for pending, _ in found:
            self._waiting.remove(pending)
        return found

    def _wait_for_burst(self) -> None:
        """Waits a moment for the rest of a burst, counted from the arrival of its oldest request."""
        first = self._waiting[0]
        left_s = first.arrived_s + self._config.batch_wait_s - time.monotonic()
        if left_s > 0 and not first.own_batch:
            full = self._config.max_batch
            self._changed.wait_for(lambda: len(self._waiting) >= full or self._closed, left_s)


def _fail_withdrawn(withdrawn: list[tuple[PendingRequest, Exception]]) -> None:
    """Ends withdrawn requests; outside of the lock, since futures have callbacks."""
    for pending, error in withdrawn:
        if pending.start():
            pending.future.set_exception(error)


def choose_batch(
    waiting: Sequence[PendingRequest], config: EngineConfig, max_tokens: int
) -> list[PendingRequest]:
    """Returns the next padded batch, oldest request first."""
    first, *others = waiting
    batch = [first]
    if first.own_batch:
        return batch
    for pending in others:
        if len(batch) >= config.max_batch:
            break
        lengths = [one.prompt_tokens for one in (*batch, pending)]
        similar = max(lengths) <= config.length_ratio * min(lengths)
        fits = count_padded_tokens([*batch, pending]) <= max_tokens
        if similar and not pending.own_batch and fits:
            batch.append(pending)
    return batch


def count_padded_tokens(batch: Sequence[PendingRequest]) -> int:
    """Returns the positions of the KV cache that a padded batch needs."""
    prompt = max(pending.prompt_tokens for pending in batch)
    answer = max(pending.request.generation.max_new_tokens for pending in batch)
    return len(batch) * (prompt + answer)
