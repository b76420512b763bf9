"""Runs whole batches by `generate`: for models that slots cannot hold (see `kv_shape`).

Models outside of the LLaVA family run alone, row by row: what belongs to a picture is their
processor's secret, and so rows cannot be joined.

A batch that runs out of memory is halved; a batch in which the model raises is run again
row by row, so that only the guilty row fails. A row is delivered when it ends, not when
its batch does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from videoqa.errors import EngineStopped
from videoqa_worker.engine.device.memory import free_memory
from videoqa_worker.engine.execution.collate import left_padded
from videoqa_worker.engine.failures import STOPPED, Fault, fault_of
from videoqa_worker.engine.model import vision
from videoqa_worker.engine.model.loading import Loaded
from videoqa_worker.engine.request import Ticket
from videoqa_worker.engine.scheduling.request_queue import WaitingRoom, padded_tokens
from videoqa_worker.engine.sequence.controls import Row, Sampling, Taking
from videoqa_worker.engine.stats import Stats
from videoqa_worker.prompt import ModelInputs
from videoqa_worker.settings import EngineConfig

__all__ = ["BatchRunner"]


class BatchRunner:
    """Generates for one batch at a time, on the calling thread; makes smaller ones of it if it fails."""

    def __init__(self, loaded: Loaded, config: EngineConfig, stopping: Callable[[], bool]) -> None:
        """
        Arguments:
            stopping: the engine is closing; asked at every decode step.
        """
        self._loaded = loaded
        self._most_tokens = config.max_batch_tokens
        self._joins = loaded.llava and not config.batch_invariant
        self._stopping = stopping
        self.beat_s = time.monotonic()
        self._running = 0
        self.memory_tokens: int | None = None
        """Padded tokens that a batch should stay under, learnt from running out of memory."""

    wants_digests = False

    @property
    def stats(self) -> Stats:
        return Stats(running=self._running, beat_s=self.beat_s)

    def step(self, room: WaitingRoom) -> bool:
        """Waits for a batch and runs it; False if the room is closed."""
        self.beat_s = time.monotonic()
        most = min(self._most_tokens, self.memory_tokens or 2**62)
        batch = room.next_batch(most if self._joins else 0)
        self.run(batch)
        return bool(batch)

    def close(self) -> None:
        """No row outlives `run`."""

    def run(self, tickets: Sequence[Ticket]) -> None:
        """Answers every ticket: with a result or an error.

        Raises:
            torch.AcceleratorError: the device is broken until the process ends.
        """
        running = [t for t in tickets if t.start()]
        self._running, self.beat_s = len(running), time.monotonic()
        try:
            self._run([running])
        finally:
            self._running = 0
            for ticket in running:
                if not ticket.future.done():
                    ticket.future.set_exception(EngineStopped(STOPPED))

    def _run(self, batches: list[list[Ticket]]) -> None:
        """The last batch first; a batch that fails is replaced by smaller ones."""
        while batches:
            batch = [ticket for ticket in batches.pop() if not ticket.future.done()]
            if not batch:
                continue
            fault = self._attempt(batch)
            if fault is None:
                continue
            free_memory()
            batches.extend(reversed(self._smaller(batch, fault)))

    def _attempt(self, batch: list[Ticket]) -> Fault | None:
        try:
            self._generate(batch)
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the engine lives on
            return fault_of(error)
        return None

    def _smaller(self, batch: list[Ticket], fault: Fault) -> list[list[Ticket]]:
        left = [ticket for ticket in batch if not ticket.future.done()]
        if len(batch) == 1:
            for ticket in left:
                ticket.future.set_exception(fault.as_error(ticket))
            return []
        if not fault.memory:
            return [[ticket] for ticket in left]
        self.memory_tokens = padded_tokens(batch) // 2
        half = (len(left) + 1) // 2
        return [left[:half], left[half:]]

    def _generate(self, batch: list[Ticket]) -> None:
        rows = [Row(ticket, self._loaded.tokenizer, self._loaded.eos) for ticket in batch]
        for row in rows:
            row.poll()
            self._settle(row)
        rows = [row for row in rows if not row.done]
        if not rows:
            return
        model = self._loaded.model
        inputs = [row.ticket.request.inputs for row in rows]
        ids, mask = left_padded(inputs, self._loaded.pad, model.device)
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            **self._seen(inputs),
            generation_config=self._settings(rows),
            logits_processor=LogitsProcessorList([Sampling(rows, ids.device, self._settle)]),
            stopping_criteria=StoppingCriteriaList([Taking(rows, self._settle)]),
        )

    def _seen(self, inputs: Sequence[ModelInputs]) -> dict[str, Any]:
        """The pictures of the rows, as the model takes them."""
        model = self._loaded.model
        if self._loaded.llava:
            features = vision.join([vision.encode(model, row) for row in inputs])
            return {"mm_encoder_outputs": features}
        (row,) = inputs
        return {name: vision.placed(value, model) for name, value in row.images.items()}

    def _settings(self, rows: Sequence[Row]) -> GenerationConfig:
        """Greedy until the last row is at its limit: each row ends by its own controls."""
        return GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=max(row.generation.max_new_tokens for row in rows),
            pad_token_id=self._loaded.pad,
        )

    def _settle(self, row: Row) -> None:
        """Ends a row if the engine is closing; delivers it if it is done."""
        self.beat_s = time.monotonic()
        if not row.done and self._stopping():
            row.error = EngineStopped(STOPPED)
        if row.error is not None:
            row.ticket.future.set_exception(row.error)
        elif row.finish_reason is not None:
            row.ticket.future.set_result(row.generated())
