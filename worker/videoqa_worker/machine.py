"""Cores and memory that this process may use: those of the machine, or less in a container.

A container of two cores on a machine of 64 sees all 64 by `os.cpu_count`, and all of the memory by
`sysconf`. Its limits are in the control groups (cgroups) of the process, version 2 or 1, which may be
limited at each level of their hierarchy. Without them, as on macOS, the machine itself is the limit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "count_cores", "keep_threads_from_spinning", "measure_memory"]

_ROOT = Path("/")
_WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_UNLIMITED = 1 << 60
"""Version 1 writes a number close to 2**63 where there is no limit."""


@dataclass(frozen=True)
class Memory:
    """Memory of the machine, or of the container if that is less."""

    total_bytes: int
    available_bytes: int
    """Free, or held by caches of files, which the kernel gives up when it is needed."""


def count_cores(root: Path = _ROOT) -> int:
    """Returns the number of cores that this process may use, a share of one counted as one.

    The least of its CPU affinity and the CPU quotas of its control groups.
    """
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [math.ceil(quota) for quota in _list_quotas(root)]
    return max(1, min([affine or 1, *quotas]))


def measure_memory(root: Path = _ROOT) -> Memory:
    """Measures the memory that this process may use.

    The least of the machine's and what the limits of its control groups leave.
    """
    total, available = _measure_machine(root)
    for limit, used in _list_memory_limits(root):
        total, available = min(total, limit), min(available, limit - used)
    return Memory(total, max(0, available))


def _list_quotas(root: Path) -> Iterator[float]:
    """Yields the CPU quotas, in cores."""
    for folder, version in _list_groups(root, "cpu"):
        if version == 2:
            quota, _, period = _read(folder / "cpu.max").partition(" ")
        else:
            quota = _read(folder / "cpu.cfs_quota_us")
            period = _read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):  # else "max", or -1
            yield int(quota) / int(period)


def _list_memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yields each limit with the bytes that are used of it."""
    for folder, version in _list_groups(root, "memory"):
        if version == 2:  # above memory.high a group is slowed down until it hardly runs
            limits, usage, cached = "memory.max memory.high", "memory.current", "inactive_file"
        else:
            limits, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        texts = [_read(folder / name) for name in limits.split()]
        found = [int(text) for text in texts if text.isdecimal()]
        used = _read(folder / usage)
        if found and min(found) < _UNLIMITED and used.isdecimal():
            reclaimable = _read_fields(folder / "memory.stat").get(cached, 0)
            yield min(found), max(0, int(used) - reclaimable)


def _list_groups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Yields the folders of this process's group for a controller and of all above, with their version.

    In a container the group's path may be one of the host's, which is not mounted: then the mount's own
    root is the container's group, and is the only one of them that exists.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        mount = root / "sys/fs/cgroup"
        if number == "0" and not controllers:
            version = 2
        elif controller in controllers.split(","):
            mount, version = mount / controller, 1
        else:
            continue
        folder = mount / path.strip("/")
        for one in (folder, *folder.parents):
            if one.is_dir():
                yield one, version
            if one == mount:
                break


def _measure_machine(root: Path) -> tuple[int, int]:
    """Returns the memory of the machine, and what is available of it."""
    fields = _read_fields(root / "proc/meminfo")
    if {"MemTotal", "MemAvailable"} <= fields.keys():
        return fields["MemTotal"] << 10, fields["MemAvailable"] << 10
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return total, total // 2  # macOS tells what is free only to its own tools


def _read_fields(path: Path) -> dict[str, int]:
    """Reads lines of a name and a number, such as `MemTotal:  24000 kB`."""
    words = [line.split() for line in _read(path).splitlines()]
    return {one[0].rstrip(":"): int(one[1]) for one in words if len(one) > 1 and one[1].isdecimal()}


def _read(path: Path) -> str:
    """Returns the text of a file; empty if it is not there, or may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def keep_threads_from_spinning() -> None:
    """Has torch's threads sleep while they wait for each other, unless the environment says something about it.

    They would spin, on cores that the decoding processes and the jobs' pixels need. OpenMP reads this once,
    when torch is imported.
    """
    if not any(os.environ.get(name) for name in _WAIT_VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
