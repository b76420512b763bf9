"""Continuous batching: rows join and leave at every step.

A step reads: schedule, run, postprocess. At most one prompt is on its way in, by pieces where
others would wait for it; all running rows get their next token together. Each row has its own
limit, end, stop strings, sampling and cancel, and its tokens are those that it would have alone.

What fails convicts only itself. Out of memory: what was kept goes first, then the youngest row
goes back to wait. If the model raises on several rows, each is run again by itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from videoqa.errors import ModelError
from videoqa_worker.engine.batching import WaitingRoom
from videoqa_worker.engine.config import EngineConfig
from videoqa_worker.engine.faults import NO_NUMBERS, Fault, fault_of
from videoqa_worker.engine.graphs import Graphs
from videoqa_worker.engine.kv import KvShape
from videoqa_worker.engine.layout import Layout
from videoqa_worker.engine.load import Loaded
from videoqa_worker.engine.memory import free_memory
from videoqa_worker.engine.passes import Passes
from videoqa_worker.engine.prompts import Prompts
from videoqa_worker.engine.request import Ticket
from videoqa_worker.engine.sampling import Sampler
from videoqa_worker.engine.scheduler import Scheduler
from videoqa_worker.engine.seats import Seat
from videoqa_worker.engine.shaping import Shaping, processors
from videoqa_worker.engine.stats import Stats

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
            (self._prefill, self._recover_prompts),
            (self._decode, self._recover_rows),
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

    # Postprocess

    def _postprocess(self, drawn: Drawn) -> None:
        """Gives each row its token, and lets go of rows that are done."""
        for seat, token in drawn:
            prompt, seat.prompt = seat.prompt, None
            if token < 0:  # not-a-number may be all over what would be kept
                continue
            if prompt is not None:
                seat.slot.written = True
                self.prompts.keep(prompt, self._seats.place(seat).slot)
            seat.take(token)
        self._convict([seat for seat, token in drawn if token < 0])
        for seat, _ in drawn:
            self._scheduler.settle(seat)

    def _convict(self, failed: list[Seat]) -> None:
        """Of rows whose scores are no numbers. What one writes comes through to the others of its slot:
        then nobody knows whose it was, and each is asked again by itself."""
        again: list[Seat] = []
        for seat in failed:
            beside = [one for one in failed if one.slot is seat.slot]
            self._layout.wipe(seat, whole=len(beside) == len(seat.slot.seats))
            # Of a prompt that is half there nobody has seen whether it is numbers.
            unseen = any(one.begun and one.prompt is not None for one in seat.slot.seats)
            if len(beside) == 1 and not unseen:
                seat.row.error = ModelError(NO_NUMBERS)
            else:
                seat.ticket.suspect = True
                again.append(seat)
        for seat in again:
            self._scheduler.leave(seat)
        self._scheduler.again += [seat.ticket for seat in again]

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

    # Faults

    def _recover_prompts(self, fault: Fault) -> None:
        """Of the prompts that were on their way in."""
        failed = [seat for seat in self._seats.filling if seat.begun] or self._seats.filling[:1]
        tickets = [seat.ticket for seat in failed]
        for seat in failed:
            self._scheduler.leave(seat)
        free_memory()
        if not fault.memory and len(failed) > 1:
            for ticket in tickets:
                ticket.suspect = True
            self._scheduler.again += tickets
        elif fault.memory and not tickets[0].retried and self.prompts.let_go():
            for ticket in tickets:
                ticket.retried = True
            self._scheduler.again += tickets
        elif fault.memory and (self._seats or len(failed) > 1):
            self._scheduler.fewer(len(self._seats) or len(failed) - 1)
            self._scheduler.again += tickets
        else:
            tickets[0].future.set_exception(fault.as_error(tickets[0]))

    def _recover_rows(self, fault: Fault) -> None:
        running = self._seats.running
        for seat in running:
            seat.undo()
        free_memory()
        if fault.memory and self.prompts.let_go():
            return  # the step is done again
        if fault.memory and len(self._seats) > 1:
            begun = [seat for seat in self._seats.filling if seat.begun]
            least = min(reversed(running), key=lambda one: len(one.row.tokens))
            youngest = begun[-1] if begun else least
            self._scheduler.leave(youngest)
            self._scheduler.fewer(len(self._seats))
            self._scheduler.again.append(youngest.ticket)
        elif len(running) == 1:
            self._scheduler.leave(running[0])
            running[0].ticket.future.set_exception(fault.as_error(running[0].ticket))
        else:
            for seat in running:
                seat.ticket.suspect = True
            # The prompt on its way in is no suspect, but who is suspected runs alone.
            self._scheduler.again += [seat.ticket for seat in self._seats.all]
            for seat in self._seats.all:  # nobody has seen whether these hold numbers
                self._layout.wipe(seat, whole=True)
            self._seats.clear()


def _attempt(run: Callable[[], Drawn]) -> Drawn | Fault:
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - whatever a model raises, the engine lives on
        return fault_of(error)
