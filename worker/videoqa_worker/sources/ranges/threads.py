"""Runs fetches on threads while the caller's own thread waits and checks for a cancel.

No network call runs on the caller's thread, so a cancel is noticed at once, however silent the
server is. The threads live for one call: starting eight takes under a millisecond, and a source
that hangs blocks no other file, as it would in a shared pool.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable

from videoqa.telemetry.log_context import start_thread
from videoqa_worker.sources.ranges.account import FetchAccount

__all__ = ["Task", "run_in_threads"]

Task = Callable[[], None]

_LISTEN_S = 0.1
"""Interval at which `check` is called while nothing happens."""


def run_in_threads(account: FetchAccount, tasks: Iterable[Task], limit: int = 1) -> None:
    """Runs the tasks, up to `limit` at once, and returns when all are done.

    The first error of a task, or of `check`, is raised here and stops the fetch for good. Threads
    may then outlive this call until their next chunk or time-out; they still write to a file that
    is unlinked.
    """
    waiting = deque(tasks)
    left = len(waiting)
    outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        while waiting:
            try:
                task = waiting.popleft()
            except IndexError:
                return
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
                waiting.clear()
                outcomes.put(error)
                return
            outcomes.put(None)

    try:
        for number in range(min(limit, left)):
            account.threads.append(start_thread(work, name=f"videoqa-fetch-{number}"))
        while left:
            account.check_caller()
            try:
                failure = outcomes.get(timeout=_LISTEN_S)
            except queue.Empty:
                continue
            if failure is not None:
                raise failure
            left -= 1
        account.check_caller()
    except BaseException:
        waiting.clear()
        account.stop()
        raise
