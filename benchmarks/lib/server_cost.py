"""Cost of calls to a Redis or Valkey server, in the server's own accounts.

CPU time is that of the server's main thread (`INFO cpu`), which all calls share: not of its helpers, which write the
log. Other work on the machine changes it little; the wall time of each call, which it does change, is beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import redis

__all__ = ["Cost", "Meter", "join", "per"]

COUNTED = (
    "server_ms", "client_ms", "bytes_sent", "bytes_got", "commands", "socket_reads", "connections",
)  # fmt: skip
"""Fields of `Cost` that add up."""
QUIET_CHECKS = 5
"""Times that the cost of looking is measured, and its median taken off each measurement."""


@dataclass
class Cost:
    """Costs of one call, mostly means over `calls` calls."""

    calls: int
    server_ms: float
    """CPU time of the server's main thread."""
    wall_ms: float
    """Wall time of a call at the client."""
    p50_ms: float
    """Wall time that half of the calls did not exceed."""
    p99_ms: float
    client_ms: float
    """CPU time of the client's process."""
    bytes_sent: float
    """Bytes that the server sent."""
    bytes_got: float
    """Bytes that the server got."""
    commands: float
    """Commands that the server ran, those within scripts included."""
    socket_reads: float
    connections: float
    """New connections."""
    by_command: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Count and microseconds of each command; a script's include its own commands."""
    times_s: list[float] = field(default_factory=list, repr=False)
    """Wall time of each call."""

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self)
        del found["times_s"]
        return found


@dataclass(frozen=True)
class _Reading:
    cpu_s: float
    sent: int
    got: int
    commands: int
    socket_reads: int
    connections: int
    by_command: dict[str, tuple[int, int]]

    def numbers(self) -> tuple[float, ...]:
        return (
            self.cpu_s, self.sent, self.got, self.commands, self.socket_reads, self.connections,
        )  # fmt: skip


class Meter:
    """Measures what calls cost one server. Nobody else is to use the server meanwhile."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._read()
        looks = [self._subtract(self._read(), self._read()) for _ in range(QUIET_CHECKS)]
        self._own_cpu_s = statistics.median(cpu_s for cpu_s, *_ in looks)

    def _read(self) -> _Reading:
        pipe = self._client.pipeline(transaction=False)
        for section in ("cpu", "stats", "commandstats"):
            pipe.info(section)
        cpu, stats, commands = pipe.execute()
        by_command = {
            name.removeprefix("cmdstat_"): (each["calls"], each["usec"])
            for name, each in commands.items()
            if name != "cmdstat_info"
        }
        return _Reading(
            cpu_s=cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"],
            sent=stats["total_net_output_bytes"],
            got=stats["total_net_input_bytes"],
            commands=sum(calls for calls, _ in by_command.values()),
            socket_reads=stats["total_reads_processed"],
            connections=stats["total_connections_received"],
            by_command=by_command,
        )

    @staticmethod
    def _subtract(before: _Reading, after: _Reading) -> tuple[float, ...]:
        return tuple(b - a for a, b in zip(before.numbers(), after.numbers(), strict=True))

    def measure(
        self, call: Callable[[int], object], *, calls: int, first: int = 0, most_s: float = 10.0
    ) -> Cost:
        """Measures `call(first)`, `call(first + 1)` and so on, `calls` of them or until `most_s` are over."""
        times_s: list[float] = []
        before, cpu_s = self._read(), time.process_time()
        while len(times_s) < calls and (not times_s or sum(times_s) < most_s):
            at_s = time.perf_counter()
            call(first + len(times_s))
            times_s.append(time.perf_counter() - at_s)
        cpu_s = time.process_time() - cpu_s
        return self._make_cost(before, times_s, cpu_s)

    def measure_for(self, seconds: float, *, rate: Cost | None = None) -> Cost:
        """Measures what happens to the server in these seconds; each number is of one second.

        Arguments:
            rate: taken off: what the server costs by itself in a second.
        """
        before, cpu_s, at_s = self._read(), time.process_time(), time.perf_counter()
        time.sleep(seconds)
        cpu_s = time.process_time() - cpu_s
        found = self._make_cost(before, [time.perf_counter() - at_s], cpu_s)
        return per(found, seconds, less=rate)

    def _make_cost(self, before: _Reading, times_s: Sequence[float], cpu_s: float) -> Cost:
        after, count = self._read(), len(times_s)
        # The replies to these looks grow with each command that the server has seen.
        look = self._subtract(after, self._read())
        own = (self._own_cpu_s, *look[1:])
        found = [
            max(0.0, value - less) / count
            for value, less in zip(self._subtract(before, after), own, strict=True)
        ]
        server_s, sent, got, commands, socket_reads, connections = found
        by_command = {}
        for name, (calls, usec) in after.by_command.items():
            had_calls, had_usec = before.by_command.get(name, (0, 0))
            if calls > had_calls:
                by_command[name] = ((calls - had_calls) / count, (usec - had_usec) / count)
        return Cost(
            calls=count,
            server_ms=server_s * 1000,
            wall_ms=sum(times_s) / count * 1000,
            p50_ms=percentile(times_s, 0.5) * 1000,
            p99_ms=percentile(times_s, 0.99) * 1000,
            client_ms=cpu_s / count * 1000,
            times_s=list(times_s),
            bytes_sent=sent,
            bytes_got=got,
            commands=commands,
            socket_reads=socket_reads,
            connections=connections,
            by_command=by_command,
        )


def per(cost: Cost, count: float = 1.0, *, less: Cost | None = None, seconds: float = 1.0) -> Cost:
    """Returns the cost of one of `count` equal parts, without what `less` costs in so many seconds."""

    def share(value: float, taken: float) -> float:
        return max(0.0, value / count - taken * seconds)

    had: dict[str, tuple[float, float]] = less.by_command if less else {}
    by_command = {}
    for name, (calls, usec) in cost.by_command.items():
        had_calls, had_usec = had.get(name, (0.0, 0.0))
        if share(calls, had_calls) > 1e-3:
            by_command[name] = share(calls, had_calls), share(usec, had_usec)
    counted = {
        name: share(getattr(cost, name), getattr(less, name) if less else 0.0) for name in COUNTED
    }
    return replace(cost, by_command=by_command, **counted)  # type: ignore[arg-type]


def join(costs: Sequence[Cost]) -> Cost:
    """Returns the cost of a call over several measurements."""
    calls, times_s = (
        sum(cost.calls for cost in costs),
        [at for cost in costs for at in cost.times_s],
    )

    def mean(values: Iterable[float]) -> float:
        return sum(n * cost.calls for n, cost in zip(values, costs, strict=True)) / calls

    names = dict.fromkeys(name for cost in costs for name in cost.by_command)
    by_command = {}
    for name in names:
        found = [cost.by_command.get(name, (0.0, 0.0)) for cost in costs]
        by_command[name] = mean(n for n, _ in found), mean(usec for _, usec in found)
    counted = {name: mean(getattr(cost, name) for cost in costs) for name in COUNTED}
    return Cost(
        calls=calls,
        wall_ms=sum(times_s) / calls * 1000,
        p50_ms=percentile(times_s, 0.5) * 1000,
        p99_ms=percentile(times_s, 0.99) * 1000,
        by_command=by_command,
        times_s=times_s,
        **counted,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
