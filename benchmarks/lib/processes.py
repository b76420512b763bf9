"""CPU time and memory of process trees, as the kernel counts them (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessUse", "list_tree", "measure_tree", "sum_cpu_s"]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessUse:
    """One process of a tree."""

    pid: int
    command: str
    cpu_s: float
    """User and system time of its threads, and of its children that have ended."""
    resident_bytes: int
    """Pages that it shares with others are counted in each of them."""


def list_tree(pid: int) -> Iterator[int]:
    """Yields a process and all of its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from list_tree(int(child))


def measure_tree(pid: int) -> list[ProcessUse]:
    """Measures a process and its descendants; those that end meanwhile are left out."""
    found = []
    for one in list_tree(pid):
        try:
            found.append(_measure(one))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def sum_cpu_s(*pids: int) -> float:
    """Returns the CPU time of these trees."""
    return sum(use.cpu_s for pid in pids for use in measure_tree(pid))


def _measure(pid: int) -> ProcessUse:
    folder = Path(f"/proc/{pid}")
    # The name in parentheses may have spaces; state is the first field behind it.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    resident = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return ProcessUse(pid, command.strip(), sum(map(int, fields[11:15])) / _TICKS_PER_S, resident)
