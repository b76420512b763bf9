"""Forked children: connections and locks are the parent's there, and are made anew."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["reopen_in_children"]


class _Reopens(Protocol):
    """An object that makes what a forked child cannot share anew."""

    def _reopen(self) -> None: ...


_living: WeakSet[_Reopens] = WeakSet()
"""A set of WeakMethods would print errors at the end of a program: their callbacks outlive their module."""


def reopen_in_children(owner: _Reopens) -> None:
    """Has `_reopen` of an object called at the start of every forked child, as long as the object lives."""
    _living.add(owner)


def _reopen_all() -> None:
    for owner in list(_living):
        owner._reopen()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_reopen_all)
