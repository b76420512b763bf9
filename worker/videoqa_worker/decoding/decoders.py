"""The pool of decoding processes: samples frames of any video, and survives their crashes.

A few processes live as long as the worker and execute one command after the other; as many decode
at a time as there are cores. A process that waits for bytes yields its turn to another one, so
there may be more processes than cores, though never more than callers. Knows files and seconds, as
`frames` does, and nothing of jobs, URLs and models.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from types import TracebackType
from typing import Self

from videoqa.contract import Sampling
from videoqa.errors import ConfigurationError, DecoderCrashed, DecoderLost, WorkerStopping
from videoqa_worker import log_events
from videoqa_worker.decoding.decoder_process import DecoderProcess
from videoqa_worker.decoding.launch import CHILD
from videoqa_worker.decoding.messages import Command, Confinement, HeaderWish
from videoqa_worker.decoding.turns import CHECK_EVERY_S, Turn, Turns
from videoqa_worker.frames import (
    SampledSegment,
    SampledVideo,
    SparseFile,
    VideoHeader,
    no_check,
)
from videoqa_worker.machine import count_cores
from videoqa_worker.settings import FrameLimits, WorkerSettings

__all__ = ["Decoders"]

log = logging.getLogger(__name__)

Check = Callable[[], None]


class Decoders:
    """A pool of decoding processes; thread-safe, and a context manager.

    No process runs before `start` or the first command.
    """

    def __init__(
        self,
        limits: FrameLimits,
        *,
        processes: int | None = None,
        memory_bytes: int = 4 << 30,
        grace_s: float = 5.0,
        commands_each: int = 1000,
        resident_bytes: int = 512 << 20,
        uid: int = 65534,
        argv: tuple[str, ...] = CHILD,
        has_opencv: bool = False,
    ) -> None:
        """Starts no process yet.

        Arguments:
            processes: how many decode at a time; None: one per core that the container may use.
            memory_bytes: address space of one process; 230 MB of it are code.
            grace_s: how far a process may overrun `decode_timeout_s` before it is killed.
            commands_each: commands after which a process is replaced, since libraries leak.
            resident_bytes: a process that holds more after a command is replaced as well.
            uid: the user that a process becomes where the worker runs as root.
            argv: the command line that starts a process.
            has_opencv: the processes are for the sampling method `guide` alone.
        """
        self._limits = limits
        self.count = processes or count_cores()
        """Number of processes that decode at a time."""
        self._memory_bytes, self._grace_s = memory_bytes, grace_s
        self._commands_each, self._resident_bytes = commands_each, resident_bytes
        self._uid, self._argv = uid, argv
        self._has_opencv = has_opencv
        self._with_opencv: Decoders | None = None
        self._turns = Turns(self.count)
        self._lock = threading.Lock()
        self._all: set[DecoderProcess] = set()
        self._idle: list[DecoderProcess] = []
        self._closed = False
        # Linux ends a process with the thread that started it, so this thread lives until `close`.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoders")

    @classmethod
    def of(
        cls, settings: WorkerSettings, *, processes: int | None = None, most: int | None = None
    ) -> Self:
        """Makes the decoders of a worker with these settings.

        Arguments:
            processes: in place of their number.
            most: callers at a time, beyond which processes would be idle, if their number is not set.
        """
        cores = count_cores()
        return cls(
            settings.frames,
            processes=processes or settings.decoders or min(cores, most or cores),
            memory_bytes=settings.decoder_memory_bytes,
            commands_each=settings.decoder_inputs,
            uid=settings.decoder_uid,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of all current processes."""
        with self._lock:
            others = self._with_opencv
            own = tuple(process.pid for process in self._all)
        return own if others is None else (*own, *others.pids)

    def start(self) -> Confinement:
        """Starts all processes, and returns when they are ready with what confines them.

        Raises:
            ConfigurationError: they cannot be started on this machine.
        """
        started = [self._starter.submit(self._add_if_short) for _ in range(self.count)]
        fresh: list[DecoderProcess] = []
        try:
            for future in started:
                future.result()
            with self._lock:
                fresh, self._idle = self._idle, []
            for process in fresh:
                process.wait_ready(no_check)
        except (DecoderCrashed, DecoderLost) as error:
            raise ConfigurationError(
                f"videos cannot be decoded on this machine: {error.message}"
            ) from error
        finally:
            for process in fresh:
                self._return_process(process)
        confinement = fresh[0].confinement if fresh else Confinement()
        for missing in confinement.missing:
            log_events.NOT_CONFINED.log(log, layers=missing)
        return confinement

    def sample(
        self,
        file: SparseFile,
        sampling: Sampling,
        *,
        start: float | None = None,
        end: float | None = None,
        most_side: int | None = None,
        check: Check = no_check,
    ) -> SampledVideo:
        """Returns what `frames.sample_frames` returns for this file, or raises its error.

        `check` is called every 0.1 s while waiting; if it raises, the process is killed.

        Raises:
            SamplingError: as `sample_frames`; DecodeTimeout, DecoderOutOfMemory, DecoderCrashed, DecoderLost.
            SourceError: the file could not be fetched. WorkerStopping: the pool was closed meanwhile.
        """
        command = Command.of(file, sampling, start, end, most_side=most_side)
        return self._choose(sampling)._run(command, file, check)

    def segments(
        self,
        file: SparseFile,
        sampling: Sampling,
        *,
        start: float | None = None,
        end: float | None = None,
        first: int = 0,
        most_side: int | None = None,
        check: Check = no_check,
    ) -> Generator[SampledSegment]:
        """Yields what `frames.sample_segments` yields for this file, or raises its error; see `sample`.

        One process keeps the video open until the iterator is exhausted or closed, and decodes only
        while the caller waits for the next segment; commands that arrived meanwhile go first. The
        caller closes an iterator that it does not exhaust.
        """
        following: int | None = first
        while following is not None:
            with self._lend_process(check) as (process, turn, check_open):
                command = Command.of(file, sampling, start, end, following, most_side=most_side)
                segments = process.run_segments_command(
                    command,
                    file,
                    check_open,
                    while_fetching=partial(turn.yield_turn, front=True),
                    between_segments=partial(turn.yield_turn, front=False),
                )
                following = yield from _yield_until_used_up(segments, process)

    def read_image(
        self, file: SparseFile, *, most_side: int | None = None, check: Check = no_check
    ) -> SampledVideo:
        """Returns what `frames.read_image` returns for this file, or raises its error; see `sample`."""
        file.ensure([(0, file.size_bytes)])
        return self._run(Command.of(file, None, None, None, most_side=most_side), file, check)

    def read_header(
        self,
        file: SparseFile,
        sampling: Sampling,
        *,
        start: float | None = None,
        end: float | None = None,
        whole: bool,
        check: Check = no_check,
    ) -> VideoHeader:
        """Returns what `frames.read_header` returns for this file, or raises its error; see `sample`."""
        with self._lend_process(check) as (process, turn, check_open):
            wish: HeaderWish = "header_alone" if whole else "header"
            command = Command.of(file, sampling, start, end, wish=wish)
            return process.run_header_command(
                command, file, check_open, while_fetching=partial(turn.yield_turn, front=True)
            )

    def close(self) -> None:
        """Ends all processes; commands under way raise WorkerStopping."""
        with self._lock:
            self._closed = True
            everyone, idle = list(self._all), list(self._idle)
            self._idle.clear()
            others = self._with_opencv
        if others is not None:
            others.close()
        for process in everyone:
            process.end()
        for process in idle:
            process.release()
        self._starter.shutdown(cancel_futures=True)

    def _choose(self, sampling: Sampling) -> Decoders:
        """Returns the processes that have what a sampling method needs.

        Those with OpenCV start with the first job that asks for the guide's frames. The others do without its code and
        the CPU time of its import.
        """
        if sampling.method != "guide" or self._has_opencv:
            return self
        self._refuse_if_closed()
        with self._lock:
            if self._with_opencv is None:
                self._with_opencv = Decoders(
                    self._limits,
                    processes=self.count,
                    memory_bytes=self._memory_bytes,
                    grace_s=self._grace_s,
                    commands_each=self._commands_each,
                    resident_bytes=self._resident_bytes,
                    uid=self._uid,
                    argv=self._argv,
                    has_opencv=True,
                )
            return self._with_opencv

    def _run(self, command: Command, file: SparseFile, check: Check) -> SampledVideo:
        with self._lend_process(check) as (process, turn, check_open):
            return process.run_command(
                command, file, check_open, while_fetching=partial(turn.yield_turn, front=True)
            )

    @contextmanager
    def _lend_process(self, check: Check) -> Iterator[tuple[DecoderProcess, Turn, Check]]:
        """Waits for a turn, lends a process, and yields the check to call while it works."""

        def check_open() -> None:
            self._refuse_if_closed()
            check()

        check_open()
        with self._turns.wait_turn(check_open) as turn:
            process = self._borrow(check_open)
            try:
                process.wait_ready(check_open)
                yield process, turn, check_open
            except (DecoderCrashed, DecoderLost):
                self._refuse_if_closed()
                raise
            finally:
                self._return_process(process)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise WorkerStopping(
                "the worker shuts down and its decoders are closed; the job is retried on another worker"
            )

    # Processes

    def _borrow(self, check: Check) -> DecoderProcess:
        """Returns an idle process that is usable, or a new one."""
        while True:
            check()
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                self._add_and_wait(check)
            elif process.is_usable():
                return process
            else:
                log_events.DECODER_ENDED.log(log, pid=process.pid)
                self._discard(process)

    def _add_and_wait(self, check: Check) -> None:
        try:
            added = self._starter.submit(self._add_if_none_idle)
        except RuntimeError:
            self._refuse_if_closed()
            raise
        while not added.done():
            try:
                added.result(CHECK_EVERY_S)
            except TimeoutError:
                check()
        added.result()

    def _add_if_none_idle(self) -> None:
        """Runs on the starter's thread, like all that starts processes, so one at a time."""
        with self._lock:
            needed = not self._idle
        if needed:
            self._add()

    def _add_if_short(self) -> None:
        with self._lock:
            needed = len(self._all) < self.count
        if needed:
            self._add()

    def _add(self) -> None:
        process = DecoderProcess(
            self._limits,
            self._memory_bytes,
            self._grace_s,
            self._uid,
            self._argv,
            has_opencv=self._has_opencv,
        )
        with self._lock:
            if not self._closed:
                self._all.add(process)
                self._idle.append(process)
                return
        process.end()
        process.release()

    def _return_process(self, process: DecoderProcess) -> None:
        grown = process.commands > 0 and process.resident_bytes > self._resident_bytes
        worn = grown or process.has_used_up or process.commands >= self._commands_each
        with self._lock:
            # Twice as many, since some wait for bytes while others decode.
            room = len(self._idle) < 2 * self.count
            if room and not worn and not self._closed and process.is_usable():
                self._idle.append(process)
                return
        self._discard(process)
        self._replace()

    def _discard(self, process: DecoderProcess) -> None:
        with self._lock:
            self._all.discard(process)
        process.end()
        process.release()

    def _replace(self) -> None:
        """Starts a process if fewer are ready than may decode at a time.

        A command that finds none idle starts its own.
        """
        with self._lock:
            if len(self._all) < self.count and not self._closed:
                self._starter.submit(self._add_if_short)


def _yield_until_used_up(
    segments: Generator[SampledSegment], process: DecoderProcess
) -> Generator[SampledSegment, None, int | None]:
    """Yields segments; returns the number with which another process is to go on, or None."""
    with closing(segments):
        for segment in segments:
            yield segment
            following = segment.number + 1
            if following < segment.total and process.has_used_up:
                return following
    return None
