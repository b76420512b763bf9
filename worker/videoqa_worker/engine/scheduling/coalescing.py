"""Equal requests that wait or run at the same time share one sequence.

Each caller is a subscriber of the coalesced request, which goes on while one of them wants it.
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

from videoqa_worker.engine.generation import Generated, GenerationRequest, make_canceled
from videoqa_worker.engine.kvcache.prefix_cache import digest_prefix

__all__ = ["CoalescedRequest", "Coalescer", "compute_key"]


def compute_key(request: GenerationRequest) -> bytes | None:
    """Returns a digest that equal requests have in common; None if a request must not be shared.

    Requests that stream their text share only with each other: for the others it is not decoded.
    """
    drawn = request.generation.temperature > 0
    if request.own_batch or (drawn and request.generation.seed is None):
        return None
    inputs = request.inputs
    prompt = digest_prefix(inputs, inputs.media_digest, inputs.length)
    form = request.form.model_dump_json() if request.form is not None else ""
    rest = f"{request.on_text is not None} {form} {request.generation.model_dump_json()}"
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
        later_s = self.arrived_s - begun_s
        own = replace(
            generated,
            first_token_s=max(0.0, generated.first_token_s - later_s),
            seconds=max(0.0, generated.seconds - later_s),
        )
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(own)


class CoalescedRequest:
    """One request for several subscribers, who join from any thread; it calls them on the engine's."""

    def __init__(self, first: _Subscriber) -> None:
        self._subscribers = [first]
        self._lock = threading.Lock()
        self._text = ""
        self._begun_s = first.arrived_s
        self.request = replace(
            first.request,
            should_stop=self._should_stop,
            on_progress=self._forward_progress,
            on_text=self._forward_text if first.request.on_text is not None else None,
        )
        """The request that the engine runs."""

    def add(self, subscriber: _Subscriber) -> bool:
        """Adds a subscriber; returns False if the request has ended, or is about to."""
        with self._lock:
            if not self._subscribers:
                return False
            self._subscribers.append(subscriber)
            if self._text and subscriber.request.on_text is not None:
                self._call(subscriber, subscriber.request.on_text, self._text)
            return True

    def _should_stop(self) -> bool:
        with self._lock:
            for subscriber in [*self._subscribers]:
                if subscriber.future.cancelled():
                    self._subscribers.remove(subscriber)
                elif self._call(subscriber, subscriber.request.should_stop):
                    self._subscribers.remove(subscriber)
                    subscriber.fail(make_canceled())
            return not self._subscribers

    def _forward_progress(self, tokens: int) -> None:
        with self._lock:
            for subscriber in [*self._subscribers]:
                if subscriber.request.on_progress is not None:
                    self._call(subscriber, subscriber.request.on_progress, tokens)

    def _forward_text(self, text: str) -> None:
        with self._lock:
            self._text += text
            for subscriber in [*self._subscribers]:
                if subscriber.request.on_text is not None:
                    self._call(subscriber, subscriber.request.on_text, text)

    def _call(self, subscriber: _Subscriber, call: Callable[..., object], *args: object) -> object:
        """Calls a subscriber back; if that raises, only this subscriber fails."""
        try:
            return call(*args)
        except Exception as error:  # noqa: BLE001
            self._subscribers.remove(subscriber)
            subscriber.fail(error)
            return False

    def complete(self, ended: Future[Generated]) -> None:
        """Gives all subscribers the answer or the error."""
        with self._lock:
            subscribers, self._subscribers = self._subscribers, []
        error = ended.exception()
        for subscriber in subscribers:
            if error is None:
                subscriber.answer(ended.result(), self._begun_s)
            else:
                subscriber.fail(copy.copy(error))  # each caller may add to its own


class Coalescer:
    """The coalesced requests of one engine, by key."""

    def __init__(self) -> None:
        self._running: dict[bytes, CoalescedRequest] = {}
        self._lock = threading.Lock()
        self.shared = 0
        """Requests that needed no sequence of their own."""

    def join(
        self, request: GenerationRequest, key: bytes
    ) -> tuple[Future[Generated], CoalescedRequest | None]:
        """Subscribes to an equal request if one is running.

        Returns the caller's future, and the coalesced request to run for it if it is the first.
        """
        subscriber = _Subscriber(request)
        with self._lock:
            coalesced = self._running.get(key)
            if coalesced is not None and coalesced.add(subscriber):
                self.shared += 1
                return subscriber.future, None
            coalesced = self._running[key] = CoalescedRequest(subscriber)
        return subscriber.future, coalesced

    def complete(self, key: bytes, coalesced: CoalescedRequest, ended: Future[Generated]) -> None:
        """Ends a coalesced request whose sequence has ended."""
        with self._lock:
            # Else all subscribers had withdrawn, and a later request took its place.
            if self._running.get(key) is coalesced:
                del self._running[key]
        coalesced.complete(ended)
