"""Runs padded batches by transformers' `generate`.

It remains since recurrent models, models that do more with pictures than putting their
features into the prompt (see `features_apart`), and those that fail in slots have no other way to run.
Models outside of the LLaVA family run one request at a time: only their processor knows what belongs to which
picture, so prompts cannot be joined.

A batch that runs out of memory is halved; a batch in which the model raises is run again one request
at a time, so that only the guilty one fails. A sequence is delivered when it ends, not when
its batch does.
"""

from __future__ import annotations

import time
from collections import abc
from collections.abc import Callable
from typing import Any

from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from videoqa.errors import EngineStopped
from videoqa_worker.engine.device.memory import free_memory
from videoqa_worker.engine.execution.collate import pad_left
from videoqa_worker.engine.failures import STOPPED, Fault, classify
from videoqa_worker.engine.generation import PendingRequest
from videoqa_worker.engine.model import vision
from videoqa_worker.engine.model.loading import LoadedModel
from videoqa_worker.engine.model.logits_processors import ProcessorFactory
from videoqa_worker.engine.scheduling.request_queue import RequestQueue, count_padded_tokens
from videoqa_worker.engine.sequence.controls import HFSampler, HFStopping
from videoqa_worker.engine.sequence.sequence import Sequence
from videoqa_worker.engine.stats import Stats
from videoqa_worker.engine.structured.masks import TokenMasks
from videoqa_worker.prompt import ModelInputs
from videoqa_worker.settings import EngineConfig

__all__ = ["PaddedRunner"]


class PaddedRunner:
    """Generates for one padded batch at a time, on the calling thread; splits a batch that fails."""

    def __init__(
        self, loaded: LoadedModel, config: EngineConfig, stopping: Callable[[], bool]
    ) -> None:
        """
        Arguments:
            stopping: returns True while the engine closes; called at every decode step.
        """
        self._loaded = loaded
        self._processors = ProcessorFactory(loaded.generation, loaded.model.device)
        self._token_masks = TokenMasks()
        self._max_tokens = config.max_batch_tokens
        self._joins = loaded.joins and not config.batch_invariant
        self._stopping = stopping
        self.last_step_at = time.monotonic()
        self._running = self._output_tokens = self._out_of_memory = 0
        self.memory_tokens: int | None = None
        """Padded tokens that a batch should stay under, learnt from running out of memory."""

    wants_digests = False

    @property
    def stats(self) -> Stats:
        """Counters; there are no steps to count, and tokens are counted at the end of an answer."""
        return Stats(
            running=self._running,
            output_tokens=self._output_tokens,
            out_of_memory=self._out_of_memory,
            last_step_at=self.last_step_at,
        )

    def step(self, queue: RequestQueue) -> bool:
        """Waits for a batch and runs it; returns False if the queue is closed."""
        self.last_step_at = time.monotonic()
        most = min(self._max_tokens, self.memory_tokens or 2**62)
        batch = queue.next_batch(most if self._joins else 0)
        self.run(batch)
        return bool(batch)

    def close(self) -> None:
        """Ends the thread of masks; no sequence outlives `run`."""
        self._token_masks.close()

    def run(self, requests: abc.Sequence[PendingRequest]) -> None:
        """Answers every request, with a result or an error.

        Raises:
            torch.AcceleratorError: the device is broken until the process ends.
        """
        running = [pending for pending in requests if pending.start()]
        self._running, self.last_step_at = len(running), time.monotonic()
        try:
            self._run([running])
        finally:
            self._running = 0
            for pending in running:
                if not pending.future.done():
                    pending.future.set_exception(EngineStopped(STOPPED))

    def _run(self, batches: list[list[PendingRequest]]) -> None:
        """Runs the last batch first; smaller ones replace a batch that fails."""
        while batches:
            batch = [pending for pending in batches.pop() if not pending.future.done()]
            if not batch:
                continue
            fault = self._attempt(batch)
            if fault is None:
                continue
            free_memory()
            batches.extend(reversed(self._split(batch, fault)))

    def _attempt(self, batch: list[PendingRequest]) -> Fault | None:
        try:
            self._generate(batch)
        except Exception as error:  # noqa: BLE001 - the engine survives whatever a model raises
            return classify(error)
        return None

    def _split(self, batch: list[PendingRequest], fault: Fault) -> list[list[PendingRequest]]:
        left = [pending for pending in batch if not pending.future.done()]
        self._out_of_memory += fault.is_memory
        if len(batch) == 1:
            for pending in left:
                pending.future.set_exception(fault.as_error(pending))
            return []
        if not fault.is_memory:
            return [[pending] for pending in left]
        self.memory_tokens = count_padded_tokens(batch) // 2
        half = (len(left) + 1) // 2
        return [left[:half], left[half:]]

    def _generate(self, batch: list[PendingRequest]) -> None:
        loaded = self._loaded
        sequences = [Sequence(pending, loaded.tokenizer, loaded.generation) for pending in batch]
        for sequence in sequences:
            sequence.poll_caller()
            self._finish(sequence)
        sequences = [sequence for sequence in sequences if not sequence.is_finished]
        if not sequences:
            return
        inputs = [sequence.pending.request.inputs for sequence in sequences]
        ids, mask = pad_left(inputs, loaded.generation.pad, loaded.model.device)
        sampler = HFSampler(
            sequences, self._processors, ids.device, self._finish, self._token_masks
        )
        loaded.model.generate(
            input_ids=ids,
            attention_mask=mask,
            **self._encode_media(inputs),
            generation_config=self._make_config(sequences),
            logits_processor=LogitsProcessorList([sampler]),
            stopping_criteria=StoppingCriteriaList([HFStopping(sequences, self._finish)]),
        )

    def _encode_media(self, batch: abc.Sequence[ModelInputs]) -> dict[str, Any]:
        """Returns the pictures of a batch, as the model takes them."""
        model = self._loaded.model
        if self._loaded.joins:
            features = vision.join_features([vision.encode(model, inputs) for inputs in batch])
            return {"mm_encoder_outputs": features}
        (inputs,) = batch
        return vision.load_images(model, inputs)

    def _make_config(self, sequences: abc.Sequence[Sequence]) -> GenerationConfig:
        """Returns settings for greedy decoding up to the longest limit: each sequence ends by itself."""
        return GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=max(one.generation.max_new_tokens for one in sequences),
            pad_token_id=self._loaded.generation.pad,
        )

    def _finish(self, sequence: Sequence) -> None:
        """Delivers a finished sequence; ends one that goes on if the engine is closing."""
        self.last_step_at = time.monotonic()
        if not sequence.is_finished and self._stopping():
            sequence.error = EngineStopped(STOPPED)
        if sequence.error is not None:
            sequence.pending.future.set_exception(sequence.error)
        elif sequence.finish_reason is not None:
            self._output_tokens += len(sequence.tokens)
            sequence.pending.future.set_result(sequence.build_answer())
