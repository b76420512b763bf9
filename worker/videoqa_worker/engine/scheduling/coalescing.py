"""Equal requests that wait or run at the same time share one row.

A flight is that row: it has as many passengers as callers, and goes on while one of them wants it.
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

__all__ = ["Flight", "Flights", "flight_key"]


def flight_key(request: GenerationRequest, media: bytes) -> bytes | None:
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
class _Passenger:
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


class Flight:
    """Its passengers may come from any thread; the row speaks on the engine's."""

    def __init__(self, first: _Passenger) -> None:
        self._passengers = [first]
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

    def add(self, passenger: _Passenger) -> bool:
        """False if it has ended, or is about to."""
        with self._lock:
            if not self._passengers:
                return False
            self._passengers.append(passenger)
            if self._text and passenger.request.on_text is not None:
                self._call(passenger, passenger.request.on_text, self._text)
            return True

    def _remove_withdrawn(self) -> bool:
        with self._lock:
            for passenger in [*self._passengers]:
                if passenger.future.cancelled():
                    self._passengers.remove(passenger)
                elif self._call(passenger, passenger.request.should_stop):
                    self._passengers.remove(passenger)
                    passenger.fail(canceled())
            return not self._passengers

    def _progress(self, tokens: int) -> None:
        with self._lock:
            for passenger in [*self._passengers]:
                if passenger.request.on_progress is not None:
                    self._call(passenger, passenger.request.on_progress, tokens)

    def _tell(self, text: str) -> None:
        with self._lock:
            self._text += text
            for passenger in [*self._passengers]:
                if passenger.request.on_text is not None:
                    self._call(passenger, passenger.request.on_text, text)

    def _call(self, passenger: _Passenger, call: Callable[..., object], *given: object) -> object:
        """A caller's fault is its own."""
        try:
            return call(*given)
        except Exception as error:  # noqa: BLE001
            self._passengers.remove(passenger)
            passenger.fail(error)
            return False

    def land(self, ended: Future[Generated]) -> None:
        with self._lock:
            passengers, self._passengers = self._passengers, []
        error = ended.exception()
        for passenger in passengers:
            if error is None:
                passenger.answer(ended.result(), self._begun_s)
            else:
                passenger.fail(copy.copy(error))  # each caller may add to its own


class Flights:
    """Those of one engine."""

    def __init__(self) -> None:
        self._live: dict[bytes, Flight] = {}
        self._lock = threading.Lock()
        self.shared = 0
        """Requests that needed no row of their own."""

    def board(
        self, request: GenerationRequest, key: bytes
    ) -> tuple[Future[Generated], Flight | None]:
        """The caller's future, and the flight that is to be run for it; None if one is on its way."""
        passenger = _Passenger(request)
        with self._lock:
            flight = self._live.get(key)
            if flight is not None and flight.add(passenger):
                self.shared += 1
                return passenger.future, None
            flight = self._live[key] = Flight(passenger)
        return passenger.future, flight

    def land(self, key: bytes, flight: Flight, ended: Future[Generated]) -> None:
        """Its row has ended."""
        with self._lock:
            # Else nobody wanted it, and a later one took its place.
            if self._live.get(key) is flight:
                del self._live[key]
        flight.land(ended)
