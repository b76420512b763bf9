"""Equal requests that wait or run at the same time share one row.

A shared is that row: it has as many subscribers as callers, and goes on while one of them wants it.
Requests are equal if their pictures, tokens and settings are, and if the answer is bound to be the
same: greedy, or drawn from a seed that the caller gave.
"""

from __future__ import annotations

import copy
import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from videoqa_worker.engine.kvcache.lru import prefix_digest
from videoqa_worker.engine.request import Generated, GenerationRequest, canceled

__all__ = ["CoalescedRequest", "Coalescer", "coalescing_key"]


def coalescing_key(request: GenerationRequest, media: bytes) -> bytes | None:
    """What equal requests have in common; None for one that shares with nobody. Those that listen to the
    text as it comes share with such alone: for the others it is not even decoded.

    Arguments:
        media: digest of its pictures.
    """
    drawn = request.generation.temperature > 0
    if request.alone or (drawn and request.generation.seed is None):
        return None
    prompt = prefix_digest(request.inputs, media, request.inputs.length)
    rest = f"{request.on_text is not None} {request.generation.model_dump_json()}"
    return hashlib.blake2b(prompt + rest.encode(), digest_size=20).digest()


@dataclass(eq=False)
class _Subscriber:
    request: GenerationRequest
    future: Future[Generated] = field(default_factory=Future)
    arrived_s: float = field(default_factory=time.monotonic)

    def fail(self, error: BaseException) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def answer(self, generated: Generated, begun_s: float) -> None:
        waited_s = begun_s + generated.first_token_s - self.arrived_s
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(replace(generated, first_token_s=max(0.0, waited_s)))


class CoalescedRequest:
    """Its subscribers may come from any thread; the row speaks on the engine's."""

    def __init__(self, first: _Subscriber) -> None:
        self._subscribers = [first]
        self._lock = threading.Lock()
        self._text = ""
        self._begun_s = first.arrived_s
        self.request = replace(
            first.request,
            should_stop=self._remove_withdrawn,
            on_progress=self._progress,
            on_text=self._tell if first.request.on_text is not None else None,
        )
        """What the engine runs."""

    def add(self, subscriber: _Subscriber) -> bool:
        """False if it has ended, or is about to."""
        with self._lock:
            if not self._subscribers:
                return False
            self._subscribers.append(subscriber)
            if self._text and subscriber.request.on_text is not None:
                self._call(subscriber, subscriber.request.on_text, self._text)
            return True

    def _remove_withdrawn(self) -> bool:
        with self._lock:
            for subscriber in [*self._subscribers]:
                if subscriber.future.cancelled():
                    self._subscribers.remove(subscriber)
                elif self._call(subscriber, subscriber.request.should_stop):
                    self._subscribers.remove(subscriber)
                    subscriber.fail(canceled())
            return not self._subscribers

    def _progress(self, tokens: int) -> None:
        with self._lock:
            for subscriber in [*self._subscribers]:
                if subscriber.request.on_progress is not None:
                    self._call(subscriber, subscriber.request.on_progress, tokens)

    def _tell(self, text: str) -> None:
        with self._lock:
            self._text += text
            for subscriber in [*self._subscribers]:
                if subscriber.request.on_text is not None:
                    self._call(subscriber, subscriber.request.on_text, text)

    def _call(self, subscriber: _Subscriber, call: Callable[..., object], *given: object) -> object:
        """A caller's fault is its own."""
        try:
            return call(*given)
        except Exception as error:  # noqa: BLE001
            self._subscribers.remove(subscriber)
            subscriber.fail(error)
            return False

    def complete(self, ended: Future[Generated]) -> None:
        with self._lock:
            subscribers, self._subscribers = self._subscribers, []
        error = ended.exception()
        for subscriber in subscribers:
            if error is None:
                subscriber.answer(ended.result(), self._begun_s)
            else:
                subscriber.fail(copy.copy(error))  # each caller may add to its own


class Coalescer:
    """Those of one engine."""

    def __init__(self) -> None:
        self._running: dict[bytes, CoalescedRequest] = {}
        self._lock = threading.Lock()
        self.shared = 0
        """Requests that needed no row of their own."""

    def join(
        self, request: GenerationRequest, key: bytes
    ) -> tuple[Future[Generated], CoalescedRequest | None]:
        """The caller's future, and the shared that is to be run for it; None if one is on its way."""
        subscriber = _Subscriber(request)
        with self._lock:
            shared = self._running.get(key)
            if shared is not None and shared.add(subscriber):
                self.shared += 1
                return subscriber.future, None
            shared = self._running[key] = CoalescedRequest(subscriber)
        return subscriber.future, shared

    def complete(self, key: bytes, shared: CoalescedRequest, ended: Future[Generated]) -> None:
        """Its row has ended."""
        with self._lock:
            # Else nobody wanted it, and a later one took its place.
            if self._running.get(key) is shared:
                del self._running[key]
        shared.complete(ended)
