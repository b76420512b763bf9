"""Keys of the broker in Redis that hold another type of value: told once, and the consumer goes on.

Whoever reaches the broker may write them. A queue's key is left as it is, and alone: its bells are rung for again
once it has gone. kombu's notes of unacknowledged messages are begun anew: leases recover what they were for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

from redis.exceptions import ResponseError

__all__ = ["BrokenQueues", "is_wrong_type", "renew_broken_notes"]

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
            keys = {channel._q_for_pri(queue, step): "list" for step in channel.priority_steps}
            broken = _find_broken(channel, keys)
            if broken:
                if queue not in self._look_at_s:
                    key, kind = next(iter(broken.items()))
                    log.error(
                        "Redis holds a %s under %s, expected a list of messages: no job of this queue begins "
                        "here, other queues go on; delete the key (DEL), and find out who else writes to "
                        "this Redis",
                        kind,
                        key,
                    )
                self._look_at_s[queue] = time.monotonic() + _LOOK_AGAIN_S
            elif self._look_at_s.pop(queue, None):
                log.warning("queue %s can be read again", queue)

    def _leave_out(self, queues: list[str]) -> list[str]:
        now_s = time.monotonic()
        due = [queue for queue, look_at_s in self._look_at_s.items() if look_at_s <= now_s]
        if due:
            self.look(due)
        return [queue for queue in queues if queue not in self._look_at_s]


def renew_broken_notes(channel: Any) -> None:
    """Has the channel delete its notes of unacknowledged messages where their keys hold another type."""
    qos = channel.qos
    kinds = {qos.unacked_key: "hash", qos.unacked_index_key: "zset"}

    def renewing(call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def call_again(*args: Any, **kwargs: Any) -> Any:
            try:
                return call(*args, **kwargs)
            except ResponseError as error:
                if not is_wrong_type(error):
                    raise
                for key, kind in _find_broken(channel, kinds).items():
                    log.warning(
                        "Redis held a %s under %s, where the broker's library notes unacknowledged messages: "
                        "deleted; find out who else writes to this Redis",
                        kind,
                        key,
                    )
                    with channel.conn_or_acquire() as client:
                        client.delete(key)
                return call(*args, **kwargs)

        return call_again

    for name in ("append", "ack", "reject", "restore_by_tag", "restore_visible"):
        setattr(qos, name, renewing(getattr(qos, name)))


def _find_broken(channel: Any, kinds: Mapping[str, str]) -> dict[str, str]:
    """Returns the keys that hold another type than expected, with that type."""
    with channel.conn_or_acquire() as client:
        pipe = client.pipeline(transaction=False)
        for key in kinds:
            pipe.type(key)
        found = [kind.decode() if isinstance(kind, bytes) else kind for kind in pipe.execute()]
    return {
        key: kind
        for (key, expected), kind in zip(kinds.items(), found, strict=True)
        if kind not in (expected, "none")
    }
