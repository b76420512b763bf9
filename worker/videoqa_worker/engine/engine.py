"""The resident model behind a queue: submit a request, get a future.

One thread loads the model, owns it and runs it; callers' threads only queue. The story of
that thread is `_serve`: one step after the other, by slots or, where a model does not allow for
them, by whole batches.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
import torch

from videoqa.contract import Generation
from videoqa.errors import ConfigurationError, EngineStopped, PromptTooLong
from videoqa_worker.engine.execution.continuous import SlotRunner
from videoqa_worker.engine.execution.padded import BatchRunner
from videoqa_worker.engine.failures import STOPPED
from videoqa_worker.engine.kvcache.lru import media_digest
from videoqa_worker.engine.kvcache.slot_cache import kv_shape
from videoqa_worker.engine.model.loading import Loaded, load
from videoqa_worker.engine.request import Generated, GenerationRequest, Ticket, never
from videoqa_worker.engine.scheduling.coalescing import Flights, flight_key
from videoqa_worker.engine.scheduling.request_queue import WaitingRoom
from videoqa_worker.engine.stats import Stats
from videoqa_worker.prompt import Media, Prompter, Viewed
from videoqa_worker.settings import EngineConfig

__all__ = ["Engine"]

log = logging.getLogger(__name__)


def _silent(state: str) -> None:
    pass


class Engine:
    """A model that answers requests from any thread.

    A context manager: entering starts it, leaving closes it.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        on_state: Callable[[str], None] = _silent,
        loader: Callable[[EngineConfig, Callable[[str], None]], Loaded] = load,
    ) -> None:
        """
        Arguments:
            on_state: told what the start is doing ("loading weights", "warming up", "ready").
            loader: brings the model; benchmarks make one up.
        """
        self._loader = loader
        self._config = config
        self._on_state = on_state
        self._room = WaitingRoom(config)
        self._flights = Flights()
        self._runner: SlotRunner | BatchRunner | None = None
        self._closing = threading.Event()
        self._started: Future[Loaded] = Future()
        self._thread = threading.Thread(target=self._main, name="videoqa-engine", daemon=True)

    def start(self) -> None:
        """Loads and warms up the model; returns when it is ready.

        Raises:
            ConfigurationError: the model cannot be loaded, or fails on a first question.
        """
        if self._thread.ident is None:
            self._thread.start()
        self._started.result()

    def close(self) -> None:
        """Ends the running rows and the waiting ones with EngineStopped, then the thread."""
        self._closing.set()
        self._refuse(self._room.close())
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def submit(self, request: GenerationRequest) -> Future[Generated]:
        """Queues a request, or lets it share the row of an equal one that is not answered yet.

        Its future has the answer, or a GenerationError or JobCanceled.
        """
        try:
            self.prompter.check_length(request.inputs, request.generation.max_new_tokens)
        except PromptTooLong as error:
            refused: Future[Generated] = Future()
            refused.set_exception(error)
            return refused
        media = media_digest(request.inputs)  # here, on the caller's thread
        key = flight_key(request, media)
        if key is None:
            return self._enter(request, media)
        future, flight = self._flights.board(request, key)
        if flight is not None:
            try:
                row = self._enter(flight.request, media)
            except Exception as error:  # noqa: BLE001 - equal requests may be waiting for it already
                row = Future()
                row.set_exception(error)
            row.add_done_callback(partial(self._flights.land, key, flight))
        return future

    def _enter(self, request: GenerationRequest, media: bytes) -> Future[Generated]:
        # On the caller's thread: the engine's then does not wait for the copy.
        if self._device_type == "cuda":
            request = replace(request, inputs=request.inputs.pinned())
        ticket = Ticket(request)
        if self._runner is not None and self._runner.wants_digests:
            ticket.media = media
        if not self._room.enter(ticket):
            self._refuse([ticket])
        return ticket.future

    def ask(
        self,
        media: Sequence[Media] | Viewed,
        question: str,
        generation: Generation,
        *,
        should_stop: Callable[[], bool] = never,
        alone: bool = False,
        patience_s: float = 0.0,
        on_text: Callable[[str], None] | None = None,
    ) -> Future[Generated]:
        """Writes the prompt, here on the caller's thread, and submits it.

        Raises:
            UnsupportedInput, MarkMismatch, PromptTooLong: the prompt cannot be written.
        """
        inputs = self.prompter.build(media, question, max_new_tokens=generation.max_new_tokens)
        return self.submit(
            GenerationRequest(
                inputs,
                generation,
                should_stop=should_stop,
                alone=alone,
                patience_s=patience_s,
                on_text=on_text,
            )
        )

    @property
    def stated_sampling(self) -> tuple[int | None, float | None]:
        return self.prompter.stated_sampling

    @property
    def ready(self) -> bool:
        """Started, and able to answer; False for good once the device is broken."""
        loaded = self._started.done() and self._started.exception() is None
        return loaded and self._thread.is_alive() and not self._closing.is_set()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._room)

    @property
    def stats(self) -> Stats:
        """What it did so far; zeros before the start."""
        stats = self._runner.stats if self._runner is not None else Stats()
        return replace(stats, shared=self._flights.shared)

    @property
    def model_id(self) -> str:
        return self._config.model

    @property
    def revision(self) -> str:
        """The hub's commit, or a digest of the local files."""
        return self._loaded.revision

    @property
    def prompter(self) -> Prompter:
        """Writes this model's prompts; safe to use from many threads."""
        return self._loaded.prompter

    @property
    def _device_type(self) -> str:
        device: torch.device = self._loaded.model.device
        return device.type

    @property
    def device(self) -> str:
        return str(self._loaded.model.device)

    @property
    def dtype(self) -> str:
        return str(self._loaded.model.dtype).removeprefix("torch.")

    @property
    def _loaded(self) -> Loaded:
        if not self._started.done():
            raise EngineStopped("the engine was not started; call start() or use it in `with`")
        return self._started.result()

    def _main(self) -> None:
        try:
            with torch.inference_mode():
                self._serve(self._ready())
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it
            self._fail(error)
        finally:
            self._closing.set()
            if self._runner is not None:
                self._runner.close()
            self._refuse(self._room.close())

    def _serve(self, runner: SlotRunner | BatchRunner) -> None:
        while runner.step(self._room):
            pass

    def _ready(self) -> SlotRunner | BatchRunner:
        loaded = self._loader(self._config, self._on_state)
        self._on_state("warming up")
        runner = self._runner_of(loaded)
        self._on_state("ready")
        self._runner = runner
        self._started.set_result(loaded)
        return runner

    def _runner_of(self, loaded: Loaded) -> SlotRunner | BatchRunner:
        """Slots where the model allows for them, else whole batches."""
        slots = self._slots(loaded) if self._config.batching == "slots" else None
        if slots is not None:
            return slots
        config = (
            self._config.model_copy(update={"max_batch": 1})
            if self._config.batch_invariant
            else self._config
        )
        batches = BatchRunner(loaded, config, self._closing.is_set)
        error = self._warm_up(batches, loaded.prompter)
        if error is not None:
            raise ConfigurationError(
                f"{self._config.model} was loaded, but fails on a first question: {error}",
                param="model",
            ) from error
        return batches

    def _slots(self, loaded: Loaded) -> SlotRunner | None:
        shape = kv_shape(loaded.model) if loaded.llava else None
        if shape is None:
            log.info("%s is not made for slots: it runs in padded batches", self._config.model)
            return None
        slots = SlotRunner(loaded, shape, self._config, self._closing.is_set)
        error = self._warm_up(slots, loaded.prompter)
        if error is None:
            return slots
        log.warning("%s fails in slots, padded batches are next: %s", self._config.model, error)
        return None

    def _warm_up(
        self, runner: SlotRunner | BatchRunner, prompter: Prompter
    ) -> BaseException | None:
        """One tiny question by the true path: kernels are picked, and faults show now."""
        black = np.zeros((32, 32, 3), np.uint8)
        inputs = prompter.build([Media("video", (black,))], "What is this?")
        ticket = Ticket(GenerationRequest(inputs, Generation(max_new_tokens=2)))
        runner.run([ticket])
        return ticket.future.exception()

    def _fail(self, error: BaseException) -> None:
        """The thread is at its end: while starting, tell `start`; later, tell the log."""
        if self._started.done():
            log.critical("the engine's thread died", exc_info=error)
        elif isinstance(error, ConfigurationError):
            self._started.set_exception(error)
        else:
            failed = ConfigurationError(f"the engine cannot start: {error}", param="model")
            failed.__cause__ = error
            self._started.set_exception(failed)

    def _refuse(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            if ticket.start():
                error = EngineStopped(STOPPED)
                error.had_begun = False
                ticket.future.set_exception(error)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
