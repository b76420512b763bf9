"""Continuous batching: rows join and leave at every step.

A step reads: schedule, run, postprocess. At most one prompt is on its way in, by pieces where
others would wait for it; all running rows get their next token together. Each row has its own
limit, end, stop strings, sampling and cancel, and its tokens are those that it would have alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from videoqa_worker.engine.device.cuda_graphs import Graphs
from videoqa_worker.engine.execution.forward import Passes
from videoqa_worker.engine.failures import Fault, fault_of
from videoqa_worker.engine.kvcache.allocator import Layout
from videoqa_worker.engine.kvcache.slot_cache import KvShape
from videoqa_worker.engine.kvcache.slots import Seat
from videoqa_worker.engine.model.loading import Loaded
from videoqa_worker.engine.request import Ticket
from videoqa_worker.engine.scheduling.recovery import Recovery
from videoqa_worker.engine.scheduling.request_queue import WaitingRoom
from videoqa_worker.engine.scheduling.scheduler import Scheduler
from videoqa_worker.engine.sequence.logits import Shaping, processors
from videoqa_worker.engine.sequence.prefill import Prompts
from videoqa_worker.engine.sequence.sampler import Sampler
from videoqa_worker.engine.stats import Stats
from videoqa_worker.settings import EngineConfig

__all__ = ["SlotRunner"]

Drawn = list[tuple[Seat, int]]
"""Rows and their next tokens; -1 where a row's scores are no numbers."""


class SlotRunner:
    """Runs the rows of one model, on the engine's thread."""

    def __init__(
        self, loaded: Loaded, shape: KvShape, config: EngineConfig, stopping: Callable[[], bool]
    ) -> None:
        self._config, model = config, loaded.model
        self._device: torch.device = model.device
        graphs = Graphs(model.device, wanted=config.cuda_graphs)
        self.passes = Passes(model, graphs, shape, config)
        self.prompts = Prompts(model, graphs, self.passes.cache, config)
        self._layout = Layout(self.passes.cache, graphs, config)
        self._seats = self._layout.seats
        self._scheduler = Scheduler(loaded, self._layout, self.prompts, config, stopping)
        self._recovery = Recovery(self._scheduler, self._layout, self.prompts)
        self._processors = processors(model.generation_config, loaded.eos, model.device)
        self.steps = self.rows = self.packed = self.prompt_tokens = 0
        """Counted since the start; `rows` over all steps."""
        self.beat_s = time.monotonic()
        """When the last step began: a watchdog looks at it."""

    @property
    def wants_digests(self) -> bool:
        """Whether it is worth knowing which pictures are equal."""
        return self.prompts.keeps or self._scheduler.packs

    @property
    def stats(self) -> Stats:
        return Stats(
            running=len(self._seats),
            steps=self.steps,
            rows=self.rows,
            packed=self.packed,
            prompt_tokens=self.prompt_tokens,
            beat_s=self.beat_s,
            features=self.prompts.features.counts,
            prefixes=self.prompts.prefixes.counts,
        )

    def step(self, room: WaitingRoom) -> bool:
        """One step; waits for work if there is none. False if the room is closed."""
        self.beat_s = time.monotonic()
        if not self._scheduler.schedule(room):
            return False
        for run, recover in (
            (self._prefill, self._recovery.after_prefill),
            (self._decode, self._recovery.after_decode),
        ):
            drawn = _attempt(run)
            if isinstance(drawn, Fault):
                recover(drawn)
                break
            self._postprocess(drawn)
        return True

    def run(self, tickets: list[Ticket]) -> None:
        """Answers these, then returns."""
        room = WaitingRoom(self._config)
        room.put_back(tickets)
        while room or self._seats or self._scheduler.again:
            self.step(room)

    def close(self) -> None:
        """Ends all rows with EngineStopped."""
        self._scheduler.close()

    # Run

    def _prefill(self) -> Drawn:
        """One piece of the prompt on its way in, or what is left of several; all of it if nobody waits
        meanwhile."""
        if not self._seats.filling:
            return []
        seats = self._begun()
        prompts = [seat.prompt for seat in seats if seat.prompt is not None]
        places = [self._seats.place(seat) for seat in seats]
        before = sum(prompt.done for prompt in prompts)
        if len(seats) > 1:
            scores: torch.Tensor | None = self.passes.together(prompts, places)
        else:
            scores = self.passes.advance(prompts[0], places[0], self._piece())
        self.prompt_tokens += sum(prompt.done for prompt in prompts) - before
        for seat, prompt in zip(seats, prompts, strict=True):
            seat.length = prompt.done
        if scores is None:
            return []
        return [*zip(seats, self._drawn(scores.float(), seats), strict=True)]

    def _piece(self) -> int:
        """Positions that a pass over prompts may have."""
        alone = not self._config.batch_invariant and len(self._seats) == len(self._seats.filling)
        return sys.maxsize if alone else self._config.prefill_chunk_tokens

    def _begun(self) -> list[Seat]:
        """Who gets a pass next: the first of a slot by itself, then the others, as many as a piece holds."""
        filling = self._seats.filling
        self._begin(filling[0])
        if not filling[0].slot.written:
            return filling[:1]
        left = self._piece()
        for n, seat in enumerate(filling):
            self._begin(seat)
            left -= seat.ticket.prompt_tokens - seat.length
            if seat.prompt is None or not seat.prompt.text_only or left < 0:
                return filling[: max(1, n)]
        return filling

    def _begin(self, seat: Seat) -> None:
        """What a seat needs on the device."""
        if seat.begun:
            return
        self._layout.make_room(seat)
        request, device = seat.ticket.request, self._device
        if request.generation.temperature > 0:
            seat.sampler = Sampler(request.generation, seat.ticket.seed, device)
        if self._processors:
            prompt = request.inputs.input_ids[0].to(device)
            seat.shaping = Shaping(self._processors, prompt, seat.ticket.most_tokens + 1)
        slot = seat.slot
        beside = slot.written
        if beside:
            self.packed += 1
            self._layout.pack(slot)
        seat.prompt = self.prompts.open(seat.ticket, self._seats.place(seat).slot, beside=beside)
        seat.length, seat.begun = seat.prompt.done, True
        slot.written = bool(slot.key) and seat.length >= slot.shared

    def _decode(self) -> Drawn:
        """One token more of all rows that run."""
        if not self._seats.running:
            return []
        drawn: Drawn = []
        least = self._config.max_batch if self._layout.usual else 1
        for first, slots in self._stretches():
            rows = [seat for slot in slots for seat in slot]
            last = [[seat.last for seat in slot] for slot in slots]
            scores = self.passes.decode(first, last, least=least)
            drawn += zip(rows, self._drawn(scores.float(), rows), strict=True)
        self.steps += 1
        self.rows += len(drawn)
        for seat, _ in drawn:
            seat.length += 1
        return drawn

    def _stretches(self) -> list[tuple[int, list[list[Seat]]]]:
        """Slots that are read together; where shapes must not change, only rows of one reach are."""
        found = self._seats.stretches(self.passes.free_positions)
        if not self._config.batch_invariant:
            return found
        reaches = {id(seat): self.passes.reach(seat.at + 1) for seat in self._seats.running}
        return [
            (first, [[seat for seat in slot if reaches[id(seat)] == reach] for slot in slots])
            for first, slots in found
            for reach in sorted({*reaches.values()})
        ]

    def _drawn(self, scores: torch.Tensor, seats: list[Seat]) -> list[int]:
        """Each row's next token; -1 where its scores are not finite. The only wait for the device."""
        sound = scores.isfinite().all(dim=-1)
        for n, seat in enumerate(seats):
            if seat.shaping is not None:
                scores[n] = seat.shaping(scores[n : n + 1])[0]
        tokens = scores.argmax(dim=-1)
        for n, seat in enumerate(seats):
            if seat.sampler is not None:
                tokens[n] = seat.sampler.draw(scores[n])
        drawn: list[int] = torch.where(sound, tokens, -1).tolist()
        return drawn

    # Postprocess

    def _postprocess(self, drawn: Drawn) -> None:
        """Gives each row its token; who is done gets its answer and leaves."""
        for seat, token in drawn:
            prompt, seat.prompt = seat.prompt, None
            if token < 0:  # not-a-number may be all over what would be kept
                continue
            if prompt is not None:
                seat.slot.written = True
                self.prompts.keep(prompt, self._seats.place(seat).slot)
            seat.take(token)
        self._recovery.convict([seat for seat, token in drawn if token < 0])
        for seat, _ in drawn:
            self._scheduler.settle(seat)


def _attempt(run: Callable[[], Drawn]) -> Drawn | Fault:
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - whatever a model raises, the engine lives on
        return fault_of(error)
