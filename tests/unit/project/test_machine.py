"""Cores and memory of a container, read from control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videoqa_worker.machine import Memory, count_cores, measure_memory

GIB = 1 << 30
MACHINE = {"proc/meminfo": f"MemTotal: {64 << 20} kB\nMemFree: 5 kB\nMemAvailable: {40 << 20} kB\n"}
V2 = {"proc/self/cgroup": "0::/pod/worker\n"}
V1 = {"proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n"}
CPU_V1, MEMORY_V1 = "sys/fs/cgroup/cpu/", "sys/fs/cgroup/memory/"


def make_root(folder: Path, *files: dict[str, str]) -> Path:
    for name, text in {name: text for each in files for name, text in each.items()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),  # macOS, or no control groups
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "200000 100000\n"}, 2),
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "150000 100000\n"}, 2),
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "10000 100000\n"}, 1),
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "max 100000\n"}, 64),
        # The pod has less than the worker in it.
        (
            {
                **V2,
                "sys/fs/cgroup/pod/worker/cpu.max": "800000 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "300000 100000\n",
            },
            3,
        ),
        # In a container the path is the host's, and the mount is the container's own group.
        ({**V2, "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({**V1, CPU_V1 + "cpu.cfs_quota_us": "200000", CPU_V1 + "cpu.cfs_period_us": "100000"}, 2),
        ({**V1, CPU_V1 + "cpu.cfs_quota_us": "-1", CPU_V1 + "cpu.cfs_period_us": "100000"}, 64),
        ({**V2, "sys/fs/cgroup/pod/worker/cpu.max": "what is this"}, 64),
    ],
)
def test_cores_are_those_of_the_container(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert count_cores(make_root(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("files", "total", "available"),
    [
        ({}, 64 * GIB, 40 * GIB),
        (
            {
                **V2,
                "sys/fs/cgroup/pod/worker/memory.max": str(8 * GIB),
                "sys/fs/cgroup/pod/worker/memory.current": str(5 * GIB),
                "sys/fs/cgroup/pod/worker/memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
            },
            8 * GIB,
            5 * GIB,
        ),
        (
            {
                **V2,
                "sys/fs/cgroup/pod/worker/memory.max": "max",
                "sys/fs/cgroup/pod/memory.high": str(6 * GIB),
                "sys/fs/cgroup/pod/memory.current": str(7 * GIB),
            },
            6 * GIB,
            0,
        ),
        (
            {
                **V1,
                MEMORY_V1 + "memory.limit_in_bytes": str(4 * GIB),
                MEMORY_V1 + "memory.usage_in_bytes": str(3 * GIB),
                MEMORY_V1 + "memory.stat": f"total_inactive_file {GIB}\n",
            },
            4 * GIB,
            2 * GIB,
        ),
        (
            {
                **V1,
                MEMORY_V1 + "memory.limit_in_bytes": "9223372036854771712",
                MEMORY_V1 + "memory.usage_in_bytes": str(3 * GIB),
            },
            64 * GIB,
            40 * GIB,
        ),
    ],
)
def test_memory_is_that_of_the_container(
    files: dict[str, str], total: int, available: int, tmp_path: Path
) -> None:
    assert measure_memory(make_root(tmp_path, MACHINE, files)) == Memory(total, available)


def test_a_system_without_such_files_has_a_number_of_cores_and_some_memory(tmp_path: Path) -> None:
    assert count_cores(tmp_path) >= 1
    memory = measure_memory(tmp_path)
    assert 0 < memory.available_bytes <= memory.total_bytes
