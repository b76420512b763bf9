"""Rate limits of keys: requests in a short time, counted in Redis.

All gateways count in the same place, by scripts of the library `limits` on Redis' clock, over our connections, so that
they follow a failover and report a dead Redis in time. A window slides: the count of the window before weighs as much
as is left of it. What is refused is not counted. Limits of a day are the ledger's: see `KeyQuota`.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import redis
from limits import (
    RateLimitItem,
    RateLimitItemPerDay,
    RateLimitItemPerHour,
    RateLimitItemPerMinute,
    RateLimitItemPerSecond,
)
from limits.storage import RedisStorage

from videoqa.errors import ConfigurationError, RateLimited
from videoqa.gateway.access.keys import ApiKey
from videoqa.jobs import translate_redis_errors

__all__ = ["LimitState", "RateLimits", "describe_policies", "describe_states"]

_UNITS: dict[str, type[RateLimitItem]] = {
    "s": RateLimitItemPerSecond,
    "m": RateLimitItemPerMinute,
    "h": RateLimitItemPerHour,
    "d": RateLimitItemPerDay,
}


@dataclass(frozen=True)
class LimitState:
    """A limit, and the rest of it that is left now."""

    name: str
    quota: int
    window_s: int | None
    """Length of its window; None: it has none."""
    left: int
    reset_s: int | None
    """Time until more is left; 0 if all is; None: nobody knows."""


class RateLimits:
    """Counts for all keys of one prefix. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._url = url
        self._redis = client
        # The URL is not used: connections come from our client's pool, with its time-outs and Sentinels.
        self._storage = RedisStorage(
            "redis://", connection_pool=client.connection_pool, key_prefix=f"{prefix}:limits"
        )

    def count_request(self, key: ApiKey) -> tuple[LimitState | None, RateLimited | None]:
        """Counts a request; returns the limit's state, and the refusal if it is reached."""
        if key.rate is None:
            return None, None
        state, has_passed = self._count("requests", key.rate, key.id)
        return state, None if has_passed else _make_refusal(state)

    def count_login(self, address: str, rate: str) -> RateLimited | None:
        """Counts a try of an address to log in; returns the refusal if there were too many."""
        digest = hashlib.sha256(address.encode(errors="replace")).hexdigest()[:24]
        state, has_passed = self._count("login", rate, digest)
        if has_passed:
            return None
        return RateLimited(
            f"got {state.quota:,} tries to log in from this address in {state.window_s:,} s; try again in "
            f"{state.reset_s:,} s",
            limit="login",
            retry_after_s=state.reset_s or 1,
        )

    def _count(self, name: str, rate: str, who: str) -> tuple[LimitState, bool]:
        """Counts one call of somebody, unless there were too many."""
        amount, _, unit = rate.partition("/")
        item = _UNITS[unit](int(amount), namespace=name)
        try:
            has_passed, window = self._run(item, who)
        except (ConfigurationError, redis.exceptions.ResponseError):  # no number, or another type
            with translate_redis_errors(self._url):
                self._redis.delete(*self._name_keys(item, who))
            has_passed, window = self._run(item, who)
        return _make_state(item, *_parse_window(window)), bool(has_passed)

    def _name_keys(self, item: RateLimitItem, who: str) -> list[str]:
        name, storage = item.key_for(who), self._storage
        return [
            storage.prefixed_key(storage._previous_window_key(name)),
            storage.prefixed_key(storage._current_window_key(name)),
        ]

    def _run(self, item: RateLimitItem, who: str) -> list[Any]:
        """Counts, and reads the window, in one round trip; `limits` itself would make two."""
        keys, window_s = self._name_keys(item, who), item.get_expiry()
        acquire, read = self._storage.lua_acquire_sliding_window, self._storage.lua_sliding_window
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            # By their digests: a pipeline that is given scripts asks for them before, in a round trip more.
            pipe.evalsha(acquire.sha, 2, *keys, str(item.amount), str(window_s), "1")
            pipe.evalsha(read.sha, 2, *keys, str(window_s))
            commands = list(pipe.command_stack)
            try:
                return list(pipe.execute())
            except redis.exceptions.NoScriptError:  # after a restart of Redis
                # In this order: a call beside this one that has counted finds what it reads with, and counts once.
                for script in (read, acquire):
                    self._redis.script_load(script.script)
                pipe.command_stack = commands
                return list(pipe.execute())


def _parse_window(window: list[Any]) -> tuple[int, float, int, float]:
    """Returns the counts of the last window and of this one, each with the time that is left of it."""
    found = [0.0] * 4
    for n, number in enumerate(window):
        with suppress(ValueError):
            found[n] = max(0.0, float(number or 0))
    return int(found[0]), found[1] / 1000, int(found[2]), found[3] / 1000


def _make_refusal(state: LimitState) -> RateLimited:
    return RateLimited(
        f"the limit {state.name!r} of this API key is reached: {state.quota:,} in {state.window_s:,} s; "
        f"try again in {state.reset_s:,} s",
        limit=state.name,
        retry_after_s=state.reset_s or 1,
    )


def _make_state(
    item: RateLimitItem, before: int, before_s: float, now: int, now_s: float
) -> LimitState:
    """
    Arguments:
        before: count of the window before, which weighs for another `before_s`.
        now: count of this window, which is kept for `now_s`: until its end, and one window longer.
    """
    name, window_s = "requests", item.get_expiry()
    left = max(0, item.amount - floor(before * before_s / window_s) - now)
    if before and now < item.amount:
        wait_s = before_s % (window_s / before)
        if not left:  # one is free once the window before weighs less
            wait_s = max(0.0, before_s - (item.amount - now) * window_s / before)
    elif now:
        # At the end of this window it begins to weigh less.
        wait_s = max(0.0, now_s - window_s) + max(0.0, window_s - item.amount * window_s / now)
    else:
        return LimitState(name, item.amount, window_s, left, 0)
    # A whole second more, since at the very instant the weight is still that of before.
    return LimitState(name, item.amount, window_s, left, ceil(wait_s) + (not left))


def describe_policies(states: list[LimitState]) -> str:
    """Returns the header `RateLimit-Policy` (draft 10 of the IETF)."""
    return ", ".join(
        f'"{one.name}";q={one.quota}' + (f";w={one.window_s}" if one.window_s else "")
        for one in states
    )


def describe_states(states: list[LimitState]) -> str:
    """Returns the header `RateLimit`."""
    return ", ".join(
        f'"{one.name}";r={one.left}' + ("" if one.reset_s is None else f";t={one.reset_s}")
        for one in states
    )
