"""Keys of the broker in Redis that hold another type of value: told once, and the consumer goes on.

Whoever reaches the broker may write them. A queue's key is left as it is, and alone: its bells are rung for again
once it has gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from videoqa_worker import log_events

__all__ = ["BrokenQueues", "is_wrong_type"]

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 5.0


def is_wrong_type(error: Exception) -> bool:
    """Tells if a command met a key that holds another type."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


class BrokenQueues:
    """The queues of one channel that cannot be read. Not thread-safe: the consumer's thread uses it.

    One such key makes Redis refuse to wait for all queues that are named after it.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._look_at_s: dict[str, float] = {}
        cycle = channel._queue_cycle
        consume: Callable[[int], list[str]] = cycle.consume
        cycle.consume = lambda n: self._leave_out(consume(n))

    def look(self, queues: Iterable[str] = ()) -> None:
        """Looks at the types of these queues' keys, or of all."""
        channel = self._channel
        for queue in list(queues) or list(channel.active_queues):
            keys = [channel._q_for_pri(queue, step) for step in channel.priority_steps]
            broken = _find_broken(channel, keys)
            if broken:
                if queue not in self._look_at_s:
                    log_events.QUEUE_BROKEN.log(log, key=broken[0])
                self._look_at_s[queue] = time.monotonic() + _LOOK_AGAIN_S
            elif self._look_at_s.pop(queue, None):
                log_events.QUEUE_MENDED.log(log, queue=queue)

    def _leave_out(self, queues: list[str]) -> list[str]:
        now_s = time.monotonic()
        due = [queue for queue, look_at_s in self._look_at_s.items() if look_at_s <= now_s]
        if due:
            self.look(due)
        return [queue for queue in queues if queue not in self._look_at_s]


def _find_broken(channel: Any, keys: Sequence[str]) -> list[str]:
    """Returns the keys that hold no list."""
    with channel.conn_or_acquire() as client:
        pipe = client.pipeline(transaction=False)
        for key in keys:
            pipe.llen(key)
        replies = pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, Exception) and not is_wrong_type(reply):
            raise reply
    return [key for key, reply in zip(keys, replies, strict=True) if isinstance(reply, Exception)]
