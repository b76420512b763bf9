"""Continuous batching: rows join and leave at every step.

A step reads: schedule, run, postprocess. At most one prompt is on its way in, by pieces where
others would wait for it; all running rows get their next token together. Each row has its own
limit, end, stop strings, sampling and cancel, and its tokens are those that it would have alone.

What fails convicts only itself. Out of memory: what was kept goes first, then the youngest row
goes back to wait. If the model raises on several rows, each is run again by itself.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from videoqa.errors import EngineStopped, ModelError
from videoqa_worker.engine.batching import WaitingRoom
from videoqa_worker.engine.config import EngineConfig
from videoqa_worker.engine.controls import Row
from videoqa_worker.engine.faults import STOPPED, Fault, fault_of
from videoqa_worker.engine.kv import KvShape
from videoqa_worker.engine.load import Loaded
from videoqa_worker.engine.passes import Passes, Prompt
from videoqa_worker.engine.request import Ticket
from videoqa_worker.engine.sampling import Sampler
from videoqa_worker.engine.shaping import Shaping, processors
from videoqa_worker.engine.stats import Stats

__all__ = ["SlotRunner"]

_LENGTHS = 64
"""Slots are a multiple of it long, so that they seldom have to be arranged anew."""
_MORE_AFTER = 64
"""Answers. A row too many costs one prompt again, and what was kept."""


@dataclass
class _Seat:
    """A row and its place."""

    row: Row
    prompt: Prompt | None
    """What is still on its way in."""
    length: int = 0
    """Positions written."""
    sampler: Sampler | None = None
    shaping: Shaping | None = None

    @property
    def ticket(self) -> Ticket:
        return self.row.ticket


class SlotRunner:
    """Runs the rows of one model, on the engine's thread."""

    def __init__(
        self, loaded: Loaded, shape: KvShape, config: EngineConfig, stopping: Callable[[], bool]
    ) -> None:
        self._loaded, self._config, self._stopping = loaded, config, stopping
        self.passes = Passes(loaded, shape, config)
        self._seats: list[_Seat] = []
        """Row n is in slot n; the one whose prompt is on its way in, if any, is the last."""
        self._most_rows = config.max_batch
        """Fewer once more did not fit into the device's memory; one more after every so many answers,
        since what did not fit may have been one long prompt."""
        self._answers = 0
        """Since there were fewer rows."""
        model = loaded.model
        self._processors = processors(model.generation_config, loaded.eos, model.device)
        self.steps = self.rows = self.prompt_tokens = 0
        """Counted since the start; `rows` over all steps."""
        self.beat_s = time.monotonic()
        """When the last step began: a watchdog looks at it."""

    @property
    def wants_digests(self) -> bool:
        return self.passes.keeps

    @property
    def stats(self) -> Stats:
        return Stats(
            running=len(self._seats),
            steps=self.steps,
            rows=self.rows,
            prompt_tokens=self.prompt_tokens,
            beat_s=self.beat_s,
            features=self.passes.features.counts,
            prefixes=self.passes.prefixes.counts,
        )

    def step(self, room: WaitingRoom) -> bool:
        """One step; waits for work if there is none. False if the room is closed."""
        self.beat_s = time.monotonic()
        if not self._schedule(room):
            return False
        fault = self._advance()
        if fault is not None:
            self._recover_prompt(fault, room)
        elif self._running():
            fault = self._decode()
            if fault is not None:
                self._recover_rows(fault, room)
        return True

    def run(self, tickets: list[Ticket]) -> None:
        """Answers these, then returns."""
        room = WaitingRoom(self._config)
        room.put_back(tickets)
        while room or self._seats:
            self.step(room)

    def close(self) -> None:
        """Ends all rows with EngineStopped."""
        for seat in self._seats:
            if not seat.ticket.future.done():
                seat.ticket.future.set_exception(EngineStopped(STOPPED))
        self._seats.clear()

    # Schedule

    def _schedule(self, room: WaitingRoom) -> bool:
        for seat in [*self._seats]:
            if seat.prompt is not None:
                seat.row.poll()  # running rows are asked with each token
            self._settle(seat)
        while not self._filling():
            ticket = room.take(self._fits, wait=not self._seats)
            if ticket is None:
                break
            self._join(ticket)
        return bool(self._seats)

    def _running(self) -> list[_Seat]:
        return [seat for seat in self._seats if seat.prompt is None]

    def _filling(self) -> _Seat | None:
        return self._seats[-1] if self._seats and self._seats[-1].prompt is not None else None

    def _fits(self, ticket: Ticket) -> bool:
        if not self._seats:
            return True
        if ticket.alone or self._seats[0].ticket.alone or len(self._seats) >= self._most_rows:
            return False
        longest = max(map(_slot_length, [ticket, *(seat.ticket for seat in self._seats)]))
        return (len(self._seats) + 1) * longest <= self.passes.cache.tokens

    def _join(self, ticket: Ticket) -> None:
        if not ticket.start():
            return
        row = Row(ticket, self._loaded.tokenizer, self._loaded.eos)
        # It takes memory of the device when it is first advanced: see `_begin`.
        seat = _Seat(row, Prompt(len(self._seats), ticket.prompt_tokens))
        self._seats.append(seat)
        row.poll()
        self._settle(seat)

    def _room_for(self, ticket: Ticket) -> None:
        """A slot for the last seat, whose ticket this is."""
        cache, needed = self.passes.cache, _slot_length(ticket)
        if len(self._seats) <= cache.slots and needed <= cache.length:
            return
        others = [seat.length for seat in self._seats[:-1]]
        longest = max(map(_slot_length, [seat.ticket for seat in self._seats]))
        # As long as all rows at once can be, if there is memory: graphs are lost with the slots.
        roomy = cache.tokens // self._config.max_batch // _LENGTHS * _LENGTHS
        self.passes.arrange(max(longest, roomy), others)

    # Run

    def _advance(self) -> Fault | None:
        """One piece of the prompt on its way in; all of it if nobody waits meanwhile."""
        seat = self._filling()
        if seat is None or seat.prompt is None:
            return None
        try:
            if seat.length == 0:
                seat.prompt = self._begin(seat)
            before = seat.prompt.done
            others = len(self._seats) > 1
            most = self._config.prefill_chunk_tokens if others else seat.prompt.length
            scores = self.passes.advance(seat.prompt, most)
            self.prompt_tokens += seat.prompt.done - before
            seat.length = seat.prompt.done
            drawn = self._drawn(scores.float(), [seat]) if scores is not None else None
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the engine lives on
            return fault_of(error)
        if drawn is not None:
            if drawn[0] >= 0:  # else not-a-number may be all over what would be kept
                self.passes.keep(seat.prompt)
            seat.prompt = None
            self._take(drawn, [seat])
        return None

    def _begin(self, seat: _Seat) -> Prompt:
        """What the last seat needs on the device."""
        self._room_for(seat.ticket)
        request, device = seat.ticket.request, self._loaded.model.device
        if request.generation.temperature > 0:
            seat.sampler = Sampler(request.generation, seat.ticket.seed, device)
        if self._processors:
            prompt = request.inputs.input_ids[0].to(device)
            seat.shaping = Shaping(self._processors, prompt, seat.ticket.most_tokens + 1)
        return self.passes.open(seat.ticket, len(self._seats) - 1)

    def _decode(self) -> Fault | None:
        seats = self._running()
        try:
            tokens = [seat.row.tokens[-1] for seat in seats]
            scores = self.passes.decode(tokens, [seat.length for seat in seats])
            drawn = self._drawn(scores.float(), seats)
        except Exception as error:  # noqa: BLE001
            self._undo(seats)
            return fault_of(error)
        self.steps += 1
        self.rows += len(seats)
        for seat in seats:
            seat.length += 1
        self._take(drawn, seats)
        return None

    def _undo(self, seats: list[_Seat]) -> None:
        """The step will be done again, with the same luck."""
        for seat in seats:
            if seat.sampler is not None and seat.sampler.draws > len(seat.row.tokens):
                seat.sampler.undo()

    # Postprocess

    def _take(self, drawn: list[int], seats: list[_Seat]) -> None:
        """Gives each row its token, and lets go of rows that are done."""
        for seat, token in zip(seats, drawn, strict=True):
            if token < 0:
                text = "the model wrote scores that are no numbers; try another dtype"
                seat.row.error = ModelError(text)
                self.passes.cache.wipe(self._seats.index(seat), _slot_length(seat.ticket))
            else:
                if seat.shaping is not None:
                    seat.shaping.add(token)
                seat.row.take(token)
        for seat in seats:
            self._settle(seat)

    def _drawn(self, scores: torch.Tensor, seats: list[_Seat]) -> list[int]:
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

    def _settle(self, seat: _Seat) -> None:
        """Delivers a row that is done, and frees its slot."""
        row = seat.row
        if not row.done and self._stopping():
            row.error = EngineStopped(STOPPED)
        if not row.done:
            return
        self._leave(seat)
        if row.error is not None:
            seat.ticket.future.set_exception(row.error)
        else:
            seat.ticket.future.set_result(row.generated())
            self._answers += 1
            if self._answers >= _MORE_AFTER and self._most_rows < self._config.max_batch:
                self._most_rows, self._answers = self._most_rows + 1, 0

    def _fewer(self, rows: int) -> None:
        self._most_rows, self._answers = rows, 0

    def _leave(self, seat: _Seat) -> None:
        """Frees a slot: the last row moves into it, and the prompt on its way in behind that."""
        free, last = self._seats.index(seat), len(self._running()) - 1
        if free < last:
            self._move(last, free)
            free = last
        if free < len(self._seats) - 1:
            self._move(len(self._seats) - 1, free)
        self._seats.pop()
        slot = len(self._seats)  # of a prompt on its way in, which is always the last
        if seat.prompt is not None and slot < self.passes.cache.slots:
            # Nobody has seen whether it holds numbers.
            self.passes.cache.wipe(slot, _slot_length(seat.ticket))

    def _move(self, source: int, target: int) -> None:
        seat = self._seats[source]
        if seat.length:
            self.passes.cache.move(source, target, seat.length)
        if seat.prompt is not None:
            seat.prompt.slot = target
        self._seats[target] = seat

    # Faults

    def _recover_prompt(self, fault: Fault, room: WaitingRoom) -> None:
        seat = self._seats[-1]
        self._leave(seat)
        self._free_memory()
        if not fault.memory:
            seat.ticket.future.set_exception(fault.as_error(seat.ticket))
        elif not seat.ticket.retried and self.passes.let_go():
            seat.ticket.retried = True
            room.put_back([seat.ticket])
        elif self._seats:
            self._fewer(len(self._seats))
            room.put_back([seat.ticket])
        else:
            seat.ticket.future.set_exception(fault.as_error(seat.ticket))

    def _recover_rows(self, fault: Fault, room: WaitingRoom) -> None:
        running = self._running()
        self._free_memory()
        if fault.memory and self.passes.let_go():
            return  # the step is done again
        if fault.memory and len(self._seats) > 1:
            youngest = self._filling() or min(
                reversed(running), key=lambda one: len(one.row.tokens)
            )
            self._leave(youngest)
            self._fewer(len(self._seats))
            room.put_back([youngest.ticket])
        elif len(running) == 1:
            self._leave(running[0])
            running[0].ticket.future.set_exception(fault.as_error(running[0].ticket))
        else:
            for seat in running:
                seat.ticket.suspect = True
            # The prompt on its way in is no suspect, but who is suspected runs alone.
            room.put_back([seat.ticket for seat in self._seats])
            for slot, seat in enumerate(self._seats):  # nobody has seen whether these hold numbers
                self.passes.cache.wipe(slot, _slot_length(seat.ticket))
            self._seats.clear()

    def _free_memory(self) -> None:
        """Outside of every `except` clause: only there is the last reference to tensors gone."""
        gc.collect()
        if self._loaded.model.device.type == "cuda":
            torch.cuda.empty_cache()


def _slot_length(ticket: Ticket) -> int:
    """Positions of the slot, with the one for scratch."""
    return -(-(ticket.most_tokens + 1) // _LENGTHS) * _LENGTHS
