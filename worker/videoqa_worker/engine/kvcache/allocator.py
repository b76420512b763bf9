"""How the seats lie in the cache: it is arranged, moved and wiped as they are taken and left."""

from __future__ import annotations

import sys

from videoqa_worker.engine.device.cuda_graphs import Graphs
from videoqa_worker.engine.kvcache.slot_cache import SlotCache
from videoqa_worker.engine.kvcache.slots import LENGTHS, Seat, Seats, Slot
from videoqa_worker.settings import EngineConfig

__all__ = ["Layout"]


class Layout:
    """Of one cache, on the engine's thread."""

    def __init__(self, cache: SlotCache, graphs: Graphs, config: EngineConfig) -> None:
        self.seats = Seats()
        self._cache, self._graphs, self._config = cache, graphs, config
        self.usual_length = cache.tokens // config.max_batch // LENGTHS * LENGTHS
        """Of slots, as many as rows can be."""

    @property
    def tokens(self) -> int:
        """Positions for all rows. One by itself has all that it needs, whatever the settings say."""
        return self._cache.tokens if self.seats else sys.maxsize

    @property
    def usual(self) -> bool:
        """Slots are as long as that."""
        return self._cache.length == self.usual_length

    def make_room(self, seat: Seat) -> None:
        """Slots as many and as long as the seats need."""
        cache, slots = self._cache, self.seats.slots
        needed = self.seats.length()
        used = [slot.used for slot in slots if slot.used]
        fits = len(slots) <= cache.slots and needed <= cache.length
        if self._config.batch_invariant:
            fits = cache.length == max(needed, self.usual_length)
        if fits and not (cache.grown and needed <= cache.tokens and not used):
            return
        # As long as all rows at once can be, if there is memory: graphs are lost with the slots.
        length = max(needed, self.usual_length)
        if len(seat.slot.seats) > 1:  # and for the others of its kind that may come
            more = self._config.max_batch - len(self.seats)
            likely = min(needed + more * seat.room, cache.tokens // len(slots))
            length = max(length, likely // LENGTHS * LENGTHS)
        self._graphs.forget()
        cache.arrange(length, used)

    def pack(self, slot: Slot) -> None:
        """It has several rows from here on."""
        now, then = self.seats.place_packed(slot)
        if now != then:
            most = max(self.seats.slots[n].used for n in (now, then))
            self._cache.swap(now, then, most)
        self.seats.pack(slot)

    def vacate(self, seat: Seat) -> None:
        """Other slots move into a slot that is free."""
        if seat.prompt is not None:  # nobody has seen whether it holds numbers
            self.wipe(seat, whole=not seat.slot.written)
        used = [slot.used for slot in self.seats.slots]
        for source, target in self.seats.leave(seat):
            if used[source]:
                self._cache.move(source, target, used[source])
            used[target] = used[source]
        seat.prompt = None  # whoever still knows the seat holds no memory of the device by it

    def wipe(self, seat: Seat, *, whole: bool) -> None:
        """What it may have written; `whole`: and what it shares, and what filled up its prompt."""
        slot, cache = self.seats.slots.index(seat.slot), self._cache
        if slot < cache.slots:
            start, end = (0, cache.length) if whole else (seat.start, seat.end)
            cache.wipe(slot, start, end)
