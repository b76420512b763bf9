"""Forked children: connections and locks are the parent's there, and are made anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from weakref import WeakMethod

__all__ = ["reopen_in_children"]

_living: set[WeakMethod[Callable[[], None]]] = set()


def reopen_in_children(reopen: Callable[[], None]) -> None:
    """Has a method called at the start of every forked child, as long as its object lives."""
    _living.add(WeakMethod(reopen, _living.discard))


def _reopen_all() -> None:
    for reference in list(_living):
        if reopen := reference():
            reopen()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_reopen_all)
