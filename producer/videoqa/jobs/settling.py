"""Settles the futures of threads and of event loops from another thread, many at once."""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, TypeAlias

__all__ = ["AnyFuture", "settle_all"]

AnyFuture: TypeAlias = Future[Any] | asyncio.Future[Any]
_Settled: TypeAlias = tuple[asyncio.Future[Any], Any]


def settle_all(values: Iterable[tuple[AnyFuture, Any]]) -> None:
    """Gives each future its value, or raises it there if it is an exception; each event loop is called once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Settled]] = defaultdict(list)
    for future, value in values:
        if not isinstance(future, Future):
            by_loop[future.get_loop()].append((future, value))
        elif future.set_running_or_notify_cancel():
            _set(future, value)
    for loop, of_loop in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle_in_loop, of_loop)
        except RuntimeError:  # the loop is closed, and nobody waits there any more
            continue


def _settle_in_loop(values: list[_Settled]) -> None:
    for future, value in values:
        if not future.done():
            _set(future, value)


def _set(future: AnyFuture, value: Any) -> None:
    if isinstance(value, Exception):
        error = copy.copy(value)  # each waiter's raise adds its own traceback
        error.__cause__ = value.__cause__
        future.set_exception(error)
    else:
        future.set_result(value)
