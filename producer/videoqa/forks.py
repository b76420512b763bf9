"""Forked children: connections and locks are the parent's there, and are made anew."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["reopen_in_children"]


class _Reopens(Protocol):
    def reopen_in_child(self) -> None: ...


_living: WeakSet[_Reopens] = WeakSet()


def reopen_in_children(holder: _Reopens) -> None:
    """Has `holder.reopen_in_child` called at the start of every forked child, while the holder lives."""
    _living.add(holder)


def _reopen_all() -> None:
    for holder in list(_living):
        holder.reopen_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_reopen_all)
