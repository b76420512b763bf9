"""The worker's handle of one decoding process: starts it, runs commands, kills it if it fails."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, suppress

from pydantic import ValidationError

from videoqa.errors import (
    REGISTRY,
    DecoderCrashed,
    DecoderLost,
    DecodeTimeout,
    DecodingFailed,
    SamplingError,
    VideoQAError,
)
from videoqa.telemetry.log_event import LogEvent
from videoqa_worker import log_events
from videoqa_worker.decoding.channel import Channel, ClosedError, ProtocolError
from videoqa_worker.decoding.confine import hide_memory
from videoqa_worker.decoding.launch import describe_exit, make_environment, open_lossy_pipe
from videoqa_worker.decoding.messages import (
    Abort,
    Command,
    Confinement,
    Continue,
    Ensure,
    Failed,
    Inspected,
    Present,
    Ready,
    Setup,
    Skipped,
)
from videoqa_worker.decoding.replies import Received, parse_reply
from videoqa_worker.decoding.shared_memory import UnsealedError
from videoqa_worker.decoding.turns import CHECK_EVERY_S
from videoqa_worker.frames import (
    SampledSegment,
    SampledVideo,
    SparseFile,
    VideoHeader,
    no_check,
)
from videoqa_worker.settings import FrameLimits

__all__ = ["DecoderProcess"]

log = logging.getLogger(__name__)

Leave = Callable[[], AbstractContextManager[None]]

_START_TIMEOUT_S = 60.0
"""Imports take 0.3 s, and longer on a machine that swaps."""
_COMMANDS_OF_CPU = 100
"""A process may use the CPU time of so many commands that take as long as they may."""
_MOST_SHOT_STEPS = 4096
"""Steps of the search for shots, each with a deadline of its own: 262,144 keyframes, a day with three a second."""
_ABORT_TIMEOUT_S = 3.0
"""Time to end an aborted command, which takes milliseconds unless the machine is busy."""


class DecoderProcess:
    """A decoding process. Not thread-safe: one thread at a time uses it."""

    def __init__(
        self,
        limits: FrameLimits,
        memory_bytes: int,
        grace_s: float,
        uid: int,
        argv: tuple[str, ...],
        *,
        has_opencv: bool = False,
    ) -> None:
        """Starts the process, and does not wait for it.

        To be called on a thread that outlives the process: Linux ends a process with the thread
        that started it.

        Raises:
            DecoderLost: the system cannot start a process.
        """
        hide_memory()
        self._limits, self._grace_s = limits, grace_s
        self._cpu_limit_s = math.ceil(_COMMANDS_OF_CPU * (limits.decode_timeout_s + grace_s))
        self.confinement = Confinement()
        """The layers that confine it, once it is ready."""
        self._ready = False
        self._deadline_s = 0.0
        self._most_frames = 0
        self.is_busy = False
        """True amid a command; a process left so is replaced."""
        self.commands = 0
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        self._stderr, stderr = open_lossy_pipe()
        try:
            self._process = subprocess.Popen(
                [*argv, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=[theirs.fileno()],
                env=make_environment(),
                process_group=0,  # a Ctrl-C in the terminal is for the worker
            )
        except OSError as error:
            self.release()
            raise DecoderLost(
                f"the decoding process cannot be started ({error}); expected a system that lets "
                "the worker start processes: check its limits of processes and memory"
            ) from error
        finally:
            theirs.close()
            os.close(stderr)
        with suppress(OSError):  # it has ended then, and the first command finds out
            self._channel.send(
                Setup(
                    limits=limits,
                    memory_bytes=memory_bytes,
                    cpu_s=self._cpu_limit_s,
                    uid=uid,
                    has_opencv=has_opencv,
                )
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """Resident memory; 0 where the system does not report it."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0

    @property
    def has_used_up(self) -> bool:
        """True if so much of its CPU time is gone that another process should go on."""
        return _read_cpu_s(self.pid) > self._cpu_limit_s / 2

    def is_usable(self) -> bool:
        """Returns True if the process is alive, between two commands, and has sent nothing."""
        if self.is_busy or self._process.poll() is not None:
            return False
        return not self._ready or self._channel.is_quiet()

    def wait_ready(self, check: Callable[[], None]) -> None:
        """Waits for `Ready`; raises DecoderLost if it does not come, or what `check` raises."""
        if self._ready:
            return
        self._deadline_s = time.monotonic() + _START_TIMEOUT_S
        self.is_busy = True
        try:
            answer = self._receive(check)
        except DecodeTimeout as error:
            raise DecoderLost(
                f"the decoding process was not ready within {_START_TIMEOUT_S:g} s; expected 1 s: "
                "check the machine's load and memory"
            ) from error
        except DecoderCrashed as error:  # it has seen no video
            raise DecoderLost(error.message) from error
        if not isinstance(answer, Ready):
            raise self._make_crash_error(f"it began with {type(answer).__name__}, expected Ready")
        self._ready, self.is_busy = True, False
        self.confinement = answer.confinement

    def run_command(
        self, command: Command, file: SparseFile, check: Callable[[], None], while_fetching: Leave
    ) -> SampledVideo:
        """Returns the frames of one command; enters `while_fetching` while the process waits for bytes.

        Raises:
            SamplingError: the process reported it; DecodeTimeout, DecoderCrashed, DecoderLost: it failed itself.
            SourceError, and whatever else `file` and `check` raise.
        """
        answer = self._start_command(command, file, check, while_fetching)
        if not isinstance(answer, SampledVideo):
            raise self._make_crash_error("it gave something else, expected the frames of a video")
        self._finish_command()
        return answer

    def run_header_command(
        self, command: Command, file: SparseFile, check: Callable[[], None], while_fetching: Leave
    ) -> VideoHeader:
        """Returns the header that the command asks for; see `run_command`."""
        answer = self._start_command(command, file, check, while_fetching)
        if not isinstance(answer, Inspected):
            raise self._make_crash_error("it gave frames, expected the header of a video")
        self._finish_command()
        return answer.read()

    def run_segments_command(
        self,
        command: Command,
        file: SparseFile,
        check: Callable[[], None],
        while_fetching: Leave,
        between_segments: Leave,
    ) -> Generator[SampledSegment]:
        """Yields the segments of one command; enters `between_segments` while the caller has one.

        If the caller closes the iterator early, the process aborts the command.
        """
        answer = self._start_command(command, file, check, while_fetching)
        number = total = None
        while True:
            if not isinstance(answer, SampledSegment):
                raise self._make_crash_error(
                    "it gave something else, expected the frames of a segment"
                )
            if number is None or total is None:
                total = min(answer.total, self._limits.max_segments)
                number = min(command.first, total - 1)
            if (answer.number, answer.total) != (number, total):
                raise self._make_crash_error(
                    f"it gave segment {answer.number} of {answer.total}, expected {number} of {total}"
                )
            number += 1
            is_last = number == total
            if is_last:
                self._finish_command()
            try:
                with between_segments():
                    yield answer
            except BaseException:
                if not is_last:
                    self._abort()
                raise
            if is_last:
                return
            answer = self._exchange(Continue(), file, check, while_fetching, skippable=number)

    def _start_command(
        self, command: Command, file: SparseFile, check: Callable[[], None], while_fetching: Leave
    ) -> SampledVideo | SampledSegment | Inspected:
        self.commands += 1
        self.is_busy = True
        self._most_frames = command.sampling.cap if command.sampling else 1
        # Each segment once on the way to the first, and once again if a seek fails there.
        skippable = 2 * command.first
        if command.sampling is not None and command.sampling.segment == "shots":
            skippable += _MOST_SHOT_STEPS
        return self._exchange(command, file, check, while_fetching, skippable=skippable)

    def _exchange(
        self,
        message: Command | Continue,
        file: SparseFile,
        check: Callable[[], None],
        while_fetching: Leave,
        *,
        skippable: int,
    ) -> SampledVideo | SampledSegment | Inspected:
        """Sends the message and returns the frames; serves requests for bytes until they come.

        Arguments:
            skippable: how many segments and steps the process may report as skipped.
        """
        left = skippable
        self._start_clock()
        if isinstance(message, Command):
            self._send_command(message, file)
        else:
            self._send(message)
        while True:
            answer = self._receive(check)
            if isinstance(answer, Ensure):
                self._check_time(check)
                self._fetch(answer, file, while_fetching)
            elif isinstance(answer, Skipped):
                if not left:
                    raise self._make_crash_error("it skipped more segments than there were to skip")
                left -= 1
                check()
                self._start_clock()
                self._send(Continue())
            elif isinstance(answer, Failed):
                self._finish_command(unforeseen=answer.code == DecodingFailed.code)
                raise self._make_error(answer)
            elif isinstance(answer, Ready):
                raise self._make_crash_error("it sent Ready amid a command")
            else:
                return answer

    def _start_clock(self) -> None:
        self._deadline_s = time.monotonic() + self._limits.decode_timeout_s + self._grace_s

    def _finish_command(self, *, unforeseen: bool = False) -> None:
        self.is_busy = False
        self._log_printed(log_events.DECODER_PRINTED if unforeseen else log_events.DECODER_CHATTER)

    def end(self) -> None:
        """Kills the process, whatever it does, and waits for its end; callable from any thread."""
        self._process.kill()
        self._process.wait()

    def release(self) -> None:
        """Closes this side of the connection; to be called once, by the thread that uses it."""
        self._channel.close()
        os.close(self._stderr)

    # Messages

    def _send_command(self, command: Command, file: SparseFile) -> None:
        """Sends the command with a descriptor that can only read the file."""
        descriptor = file.open_file()
        try:
            self._send(command, descriptor)
        finally:
            os.close(descriptor)

    def _send(
        self, message: Command | Continue | Present | Abort, descriptor: int | None = None
    ) -> None:
        try:
            self._channel.send(message, descriptor)
        except ConnectionError as error:
            raise self._make_crash_error("") from error
        except (OSError, ProtocolError) as error:
            raise self._make_crash_error(f"no message can be sent to it: {error}") from error

    def _receive(self, check: Callable[[], None]) -> Received:
        try:
            while (received := self._channel.receive(CHECK_EVERY_S)) is None:
                self._check_time(check)
            return parse_reply(*received, self._limits, self._most_frames)
        except ClosedError as error:
            raise self._make_crash_error("") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise self._make_crash_error(f"it sent an invalid message: {first['msg']}") from error
        except (ProtocolError, UnsealedError, OSError) as error:
            raise self._make_crash_error(f"it broke the protocol: {error}") from error

    def _check_time(self, check: Callable[[], None]) -> None:
        """Raises what `check` raises, or DecodeTimeout; a process that talks all the time has no more of it."""
        check()
        if time.monotonic() > self._deadline_s:
            raise DecodeTimeout(
                f"decoding took more than {self._limits.decode_timeout_s:g} s and could only be ended by "
                "killing its process; ask for a shorter clip, or raise the worker's VIDEOQA_DECODE_TIMEOUT_S"
            )

    def _fetch(self, wanted: Ensure, file: SparseFile, while_fetching: Leave) -> None:
        """Fetches the bytes, during which the deadline stands still and another process may decode."""
        begun_s = time.monotonic()
        try:
            with while_fetching():
                file.ensure(_cut_at_end(wanted, file.size_bytes))
        except Exception:
            self._abort()
            raise
        self._deadline_s += time.monotonic() - begun_s
        self._send(Present(spans=tuple(file.present)))

    def _abort(self) -> None:
        """Has the process end its command; it stays `is_busy` if it does not, and so is replaced."""
        self._deadline_s = time.monotonic() + _ABORT_TIMEOUT_S
        with suppress(SamplingError):
            self._send(Abort())
            while isinstance(self._receive(no_check), Ensure):
                self._check_time(no_check)
                self._send(Abort())
            self.is_busy = False

    # Failures

    def _make_error(self, failed: Failed) -> VideoQAError:
        kind = REGISTRY.get(failed.code)
        if kind is None or not issubclass(kind, SamplingError):
            return self._make_crash_error(f"it failed with {failed.code!r}")
        return kind(failed.message, param=failed.param)

    def _make_crash_error(self, why: str) -> DecoderCrashed | DecoderLost:
        """Returns the error that tells how the process ended; it stays `is_busy`, and so is replaced."""
        if not why:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_ABORT_TIMEOUT_S)  # its socket closes before it has ended
            why = describe_exit(self._process.poll())
        printed = self._log_printed(log_events.DECODER_PRINTED)
        if printed and (self._process.returncode or 0) > 0:
            why += f" ({printed.splitlines()[-1][:200]})"  # Python's own error, if it failed at the start
        is_killed = self._process.returncode == -signal.SIGKILL
        kind = DecoderLost if is_killed else DecoderCrashed
        return kind(f"the decoding process failed: {why}; the worker goes on")

    def _log_printed(self, event: LogEvent) -> str:
        """Logs and returns what the process has printed since the last call."""
        text = ""
        with suppress(BlockingIOError):
            text = os.read(self._stderr, 1 << 16).decode("utf-8", "replace").strip()
        if text:
            event.log(log, pid=self.pid, printed=json.dumps(text))
        return text


def _read_cpu_s(pid: int) -> float:
    """Returns the CPU time of a process; 0 where the system does not report it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cut_at_end(wanted: Ensure, size_bytes: int) -> list[tuple[int, int]]:
    return [(start, min(end, size_bytes)) for start, end in wanted.spans if start < size_bytes]
