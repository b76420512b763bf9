"""Estimator: a process beside the gateway that reads the headers or frames of inputs, if the worker's package is here.

It is started at the first request, in its own process since it loads a model's processor, and speaks JSON lines. It
parses in confined processes what strangers name, and may read what a worker with the gateway's environment may.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sys
from collections import Counter
from contextlib import suppress
from importlib.metadata import entry_points
from typing import Any

from videoqa.bulk import PROBES
from videoqa.contract import JobRequest
from videoqa.telemetry import log_events

__all__ = ["Estimator"]

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Requests that the process looks at at a time."""
MOST_WAITING = 32
"""Requests that wait for their turn; further ones get no estimate."""
PREVIEWS_AT_ONCE = 2
"""Requests of those at a time whose frames are decoded."""
PREVIEWS_OF_KEY = 2
"""Previews at a time of one API key, waiting ones included."""
GRACE_S = 2.0
"""Time beyond a request's own after which the process is taken for dead, and ended."""
_LINE_BYTES = 4 << 20
"""Longest answer; 64 thumbnails of noise have 2 MB."""


class Estimator:
    """Estimates of one gateway; used on its event loop."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._warming: asyncio.Task[None] | None = None
        self._previews = asyncio.Semaphore(PREVIEWS_AT_ONCE)
        self._previews_of: Counter[str] = Counter()
        self._starting = asyncio.Lock()
        self._ready = asyncio.Event()
        self._waiting = 0
        self._is_closed = False

    def warm(self) -> None:
        """Starts the process in the background, for a reader who will soon want it: it takes seconds to load."""
        if _find_module() is not None and (self._warming is None or self._warming.done()):
            self._warming = asyncio.create_task(self._warm())

    async def _warm(self) -> None:
        with suppress(OSError):  # it cannot be started: who asks is told
            await self._start()

    async def preview(self, request: JobRequest, timeout_s: float, key_id: str) -> dict[str, Any]:
        """Returns an estimate with the frames that a job would take; or only the `reason` why there is none.

        A call that is canceled ends in the process as well.
        """
        if self._previews_of[key_id] >= PREVIEWS_OF_KEY:
            return {"reason": "too_busy"}
        self._previews_of[key_id] += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self._previews.acquire()
            try:
                return await self.estimate(request, timeout_s, preview=True)
            finally:
                self._previews.release()
        except TimeoutError:
            return {"reason": "too_busy"}
        finally:
            self._previews_of[key_id] -= 1
            if not self._previews_of[key_id]:
                del self._previews_of[key_id]

    async def estimate(
        self, request: JobRequest, timeout_s: float, *, preview: bool = False
    ) -> dict[str, Any]:
        """Returns what the headers of the inputs tell; or only the `reason` why it cannot be told now."""
        if _find_module() is None:
            return {"reason": "no_probe"}
        if self._waiting >= AT_ONCE + MOST_WAITING:
            return {"reason": "too_busy"}
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self._turns.acquire()
            try:
                async with asyncio.timeout(timeout_s):
                    process = await self._start()
                return await self._ask(process, request, timeout_s, preview=preview)
            finally:
                self._turns.release()
        except TimeoutError:
            return {"reason": "too_slow"}
        except OSError:  # it cannot be started, or has just ended
            return {"reason": "probe_failed"}
        finally:
            self._waiting -= 1

    async def _ask(
        self,
        process: asyncio.subprocess.Process,
        request: JobRequest,
        timeout_s: float,
        *,
        preview: bool,
    ) -> dict[str, Any]:
        """Asks the process, which is ended if it does not keep to the time."""
        assert process.stdin is not None  # noqa: S101 (a pipe, for mypy)
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            asked = {
                "id": number,
                "timeout_s": timeout_s,
                "preview": preview,
                "request": request.model_dump(mode="json"),
            }
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            async with asyncio.timeout(timeout_s + GRACE_S):
                await process.stdin.drain()
                return await answer
        except TimeoutError:
            log_events.PROBE_HANGS.log(log)
            _kill(process)
            raise
        except asyncio.CancelledError:  # its caller has left
            process.stdin.write(json.dumps({"cancel": number}).encode() + b"\n")
            raise
        finally:
            self._answers.pop(number, None)

    async def _start(self) -> asyncio.subprocess.Process:
        """Returns the process, once it is ready: it loads a model's processor first."""
        async with self._starting:
            if self._is_closed:
                raise ProcessLookupError
            if self._process is None or self._process.returncode is not None:
                self._ready.clear()
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", str(_find_module()),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                    limit=_LINE_BYTES,
                    process_group=0,  # a Ctrl-C in the terminal is for the gateway
                )  # fmt: skip
                self._reading = asyncio.create_task(self._read(self._process))
            process = self._process
        await self._ready.wait()
        return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hands the answers out; when the process has ended, all that wait get none."""
        assert process.stdout is not None  # noqa: S101 (a pipe, for mypy)
        try:
            while line := await process.stdout.readline():
                self._ready.set()  # its first line answers nobody
                found = json.loads(line)
                answer = self._answers.get(found.pop("id"))
                if answer is not None and not answer.done():
                    answer.set_result(found)
        except ValueError:
            log_events.PROBE_BROKEN.log(log, exc_info=True)
        _kill(process)
        await process.wait()
        self._ready.set()  # who waits finds out that it has ended
        if not self._is_closed:
            log_events.PROBE_ENDED.log(log)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result({"reason": "probe_failed"})

    async def close(self) -> None:
        """Ends the process."""
        self._is_closed = True
        if self._warming is not None:
            self._warming.cancel()
        if self._process is not None:
            _kill(self._process)
        if self._reading is not None:
            await self._reading


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


def _find_module() -> str | None:
    """Returns the module of the worker's package that can be run as the process; None: it is not installed."""
    return next((point.module for point in entry_points(group=PROBES)), None)
