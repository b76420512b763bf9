"""What becomes of the rows when a pass fails, or scores are no numbers: what fails convicts only itself.

Out of memory: what was kept goes first, then the youngest row goes back to wait. If the model raises
on several rows, each is run again by itself.
"""

from __future__ import annotations

from videoqa.errors import ModelError
from videoqa_worker.engine.device.memory import free_memory
from videoqa_worker.engine.failures import NO_NUMBERS, Fault
from videoqa_worker.engine.kvcache.allocator import Layout
from videoqa_worker.engine.kvcache.slots import Seat
from videoqa_worker.engine.scheduling.scheduler import Scheduler
from videoqa_worker.engine.sequence.prefill import Prompts

__all__ = ["Recovery"]


class Recovery:
    """Of one model's rows, on the engine's thread."""

    def __init__(self, scheduler: Scheduler, layout: Layout, prompts: Prompts) -> None:
        self._scheduler, self._layout, self._prompts = scheduler, layout, prompts
        self._seats = layout.seats

    def after_prefill(self, fault: Fault) -> None:
        """The pass over the prompts on their way in failed."""
        seats = self._seats
        failed = [seat for seat in seats.filling if seat.begun] or seats.filling[:1]
        tickets = [seat.ticket for seat in failed]
        for seat in failed:
            self._scheduler.leave(seat)
        free_memory()
        if not fault.memory and len(failed) > 1:
            for ticket in tickets:
                ticket.suspect = True
        elif fault.memory and not tickets[0].retried and self._prompts.let_go():
            for ticket in tickets:
                ticket.retried = True
        elif fault.memory and (seats or len(failed) > 1):
            self._scheduler.fewer(len(seats) or len(failed) - 1)
        else:
            tickets[0].future.set_exception(fault.as_error(tickets[0]))
            return
        self._scheduler.again += tickets

    def after_decode(self, fault: Fault) -> None:
        """The step of the rows that run failed."""
        running = self._seats.running
        for seat in running:
            seat.undo()
        free_memory()
        if fault.memory and self._prompts.let_go():
            return  # the step is done again
        if fault.memory and len(self._seats) > 1:
            self._give_way()
        elif len(running) == 1:
            self._scheduler.leave(running[0])
            running[0].ticket.future.set_exception(fault.as_error(running[0].ticket))
        else:
            self._suspect(running)

    def _give_way(self) -> None:
        """The youngest goes back to wait: a prompt on its way in, else who has the shortest answer."""
        begun = [seat for seat in self._seats.filling if seat.begun]
        least = min(reversed(self._seats.running), key=lambda one: len(one.row.tokens))
        youngest = begun[-1] if begun else least
        self._scheduler.leave(youngest)
        self._scheduler.fewer(len(self._seats))
        self._scheduler.again.append(youngest.ticket)

    def _suspect(self, running: list[Seat]) -> None:
        """Each of these is asked again by itself."""
        for seat in running:
            seat.ticket.suspect = True
        # The prompt on its way in is no suspect, but who is suspected runs alone.
        self._scheduler.again += [seat.ticket for seat in self._seats.all]
        for seat in self._seats.all:  # nobody has seen whether these hold numbers
            self._layout.wipe(seat, whole=True)
        self._seats.clear()

    def convict(self, failed: list[Seat]) -> None:
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
