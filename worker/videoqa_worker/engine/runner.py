"""Runs a batch on the model, and makes smaller ones of it when it fails.

A batch that runs out of memory is halved; a batch in which the model raises is run again
row by row, so that only the guilty row fails. A row is delivered when it ends, not when
its batch does.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from videoqa.errors import EngineStopped, GenerationError, ModelError, OutOfMemory
from videoqa_worker.engine import vision
from videoqa_worker.engine.batching import padded_tokens
from videoqa_worker.engine.collate import left_padded
from videoqa_worker.engine.controls import Row, Sampling, Taking
from videoqa_worker.engine.load import Loaded
from videoqa_worker.engine.request import Ticket

__all__ = ["STOPPED", "Runner"]

STOPPED = "the engine stopped before the answer was complete; submit it again"


@dataclass(frozen=True)
class _Fault:
    """Why a batch failed; holds no traceback, because a traceback holds the batch's tensors."""

    memory: bool
    text: str

    def as_error(self, ticket: Ticket) -> GenerationError:
        if self.memory:
            inputs = ticket.request.inputs
            return OutOfMemory(
                f"the device has no memory for {inputs.length} tokens ({inputs.frames} frames), "
                f"even alone: {self.text}; sample fewer frames, or use a larger device or "
                "quantization"
            )
        return ModelError(f"the model raised while it generated: {self.text}")


class Runner:
    """Generates for one batch at a time, on the calling thread."""

    def __init__(self, loaded: Loaded, stopping: Callable[[], bool]) -> None:
        """
        Arguments:
            stopping: the engine is closing; asked at every decode step.
        """
        self._loaded = loaded
        self._stopping = stopping
        self.memory_tokens: int | None = None
        """Padded tokens that a batch should stay under, learnt from running out of memory."""

    def run(self, tickets: Sequence[Ticket]) -> None:
        """Answers every ticket: with a result or an error.

        Raises:
            torch.AcceleratorError: the device is broken until the process ends.
        """
        running = [t for t in tickets if t.future.set_running_or_notify_cancel()]
        try:
            self._run([running])
        finally:
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
            # Only here, outside the except clause, is the last reference to the tensors gone.
            self._free_memory()
            batches.extend(reversed(self._smaller(batch, fault)))

    def _attempt(self, batch: list[Ticket]) -> _Fault | None:
        try:
            self._generate(batch)
        except Exception as error:
            if isinstance(error, torch.AcceleratorError) and not _is_memory(error):
                raise
            # Whatever else a model raises, the engine lives on.
            return _Fault(_is_memory(error), f"{type(error).__name__}: {error}")
        return None

    def _smaller(self, batch: list[Ticket], fault: _Fault) -> list[list[Ticket]]:
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
        features = vision.join([vision.encode(model, row) for row in inputs])
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            mm_encoder_outputs=features,
            generation_config=self._settings(rows),
            logits_processor=LogitsProcessorList([Sampling(rows, ids.device)]),
            stopping_criteria=StoppingCriteriaList([Taking(rows, self._settle)]),
        )

    def _settings(self, rows: Sequence[Row]) -> GenerationConfig:
        """Greedy until the last row is at its limit: each row ends by its own controls."""
        return GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=max(row.generation.max_new_tokens for row in rows),
            pad_token_id=self._loaded.pad,
        )

    def _settle(self, row: Row) -> None:
        """Ends a row if the engine is closing; delivers it if it is done."""
        if not row.done and self._stopping():
            row.error = EngineStopped(STOPPED)
        if row.error is not None:
            row.ticket.future.set_exception(row.error)
        elif row.finish_reason is not None:
            row.ticket.future.set_result(row.generated())

    def _free_memory(self) -> None:
        gc.collect()
        if self._loaded.model.device.type == "cuda":
            torch.cuda.empty_cache()


def _is_memory(error: Exception) -> bool:
    """CUDA has a class for it; the CPU allocator raises a RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError)
        and any(text in str(error) for text in ("out of memory", "can't allocate memory"))
    )
