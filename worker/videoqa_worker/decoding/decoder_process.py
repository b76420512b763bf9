"""One decoding process as the worker sees it: started, given orders, and killed when it errs."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress

from pydantic import ValidationError

from videoqa.errors import (
    REGISTRY,
    DecoderCrashed,
    DecodeTimeout,
    InternalError,
    SamplingError,
    VideoQAError,
)
from videoqa_worker.decoding.channel import Channel, GarbledError
from videoqa_worker.decoding.messages import (
    FROM_PROCESS,
    MAX_TEXT,
    Ensure,
    Failed,
    Onward,
    Order,
    Passed,
    Present,
    Ready,
    Refused,
    Sampled,
    Setup,
    shape_of,
)
from videoqa_worker.decoding.shared import UnsealedError, map_arrays
from videoqa_worker.decoding.turns import CHECK_EVERY_S
from videoqa_worker.frames import Frame, FrameLimits, SampledSegment, SampledVideo, SparseFile

__all__ = ["CHILD", "DecoderProcess"]

log = logging.getLogger(__name__)

Away = Callable[[], AbstractContextManager[None]]
Heard = Ready | Ensure | Passed | Failed | SampledVideo | SampledSegment

CHILD = (sys.executable, "-P", "-m", "videoqa_worker.decoding.child")
_START_TIMEOUT_S = 60.0
"""It imports for 0.3 s; a machine that swaps takes longer."""
_REFUSED_TIMEOUT_S = 3.0
"""Ending an order takes milliseconds, on a machine that is not busy."""
_KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "TZ", "VIRTUAL_ENV")
_KEPT_PREFIXES = ("LC_", "LANG", "LD_", "DYLD_", "PYTHON")
"""What Python and its libraries need to start. Not the worker's credentials."""


class DecoderProcess:
    """Not thread-safe: whoever holds it, holds it alone."""

    def __init__(
        self, limits: FrameLimits, memory_bytes: int, grace_s: float, command: tuple[str, ...]
    ) -> None:
        """Starts the process, and does not wait for it.

        To be called on a thread that lives as long as the process shall: Linux ends the
        process with the thread that started it.

        Raises:
            DecoderCrashed: the system starts no process.
        """
        self._limits, self._grace_s = limits, grace_s
        self._ready = False
        self._deadline_s = 0.0
        self.at_work = False
        """Amid an order: of no use to another."""
        self.orders = 0
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        self._stderr, stderr = _lossy_pipe()
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=[theirs.fileno()],
                env=_environment(),
                process_group=0,  # a Ctrl-C in the terminal is the worker's to hear
            )
        except OSError as error:
            self.release()
            raise DecoderCrashed(
                f"the decoding process cannot be started ({error}); expected a system that lets "
                "the worker start processes: look at its limits of processes and memory"
            ) from error
        finally:
            theirs.close()
            os.close(stderr)
        with suppress(OSError):  # then it is gone, and the first order hears of it
            self._channel.send(Setup(limits=limits, memory_bytes=memory_bytes))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """0 where the system does not tell."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0

    def is_usable(self) -> bool:
        """Alive, between two orders, and silent."""
        if self.at_work or self._process.poll() is not None:
            return False
        return not self._ready or self._channel.is_quiet()

    def wait_ready(self, check: Callable[[], None]) -> None:
        """Raises DecoderCrashed if the process does not come up; what `check` raises."""
        if self._ready:
            return
        self._deadline_s = time.monotonic() + _START_TIMEOUT_S
        self.at_work = True
        try:
            answer = self._hear(check)
        except DecodeTimeout as error:
            raise DecoderCrashed(
                f"the decoding process was not ready within {_START_TIMEOUT_S:g} s"
            ) from error
        if not isinstance(answer, Ready):
            raise self._crashed(f"it began with {type(answer).__name__}, expected Ready")
        self._ready, self.at_work = True, False

    def work(
        self, order: Order, file: SparseFile, check: Callable[[], None], away: Away
    ) -> SampledVideo:
        """The frames of one order. `away` is entered while the process waits for bytes.

        Raises:
            SamplingError: as said by the process; DecodeTimeout, DecoderCrashed about it.
            InternalError: the process met what nobody foresaw.
            SourceError, and whatever else `file` and `check` raise.
        """
        answer = self._ordered(order, file, check, away)
        if not isinstance(answer, SampledVideo):
            raise self._crashed("it gave a segment, expected the frames of a video")
        self._done()
        return answer

    def work_in_segments(
        self,
        order: Order,
        file: SparseFile,
        check: Callable[[], None],
        away: Away,
        between: Away,
    ) -> Iterator[SampledSegment]:
        """The same for an order in segments. `between` is entered while the caller has one of them;
        if it wants no more, the process ends its order.
        """
        answer = self._ordered(order, file, check, away)
        number = total = None
        while True:
            if not isinstance(answer, SampledSegment):
                raise self._crashed("it gave the frames of a video, expected those of a segment")
            if number is None or total is None:
                total = min(answer.total, self._limits.max_segments)
                number = min(order.first, total - 1)
            if (answer.number, answer.total) != (number, total):
                raise self._crashed(
                    f"it gave segment {answer.number} of {answer.total}, expected {number} of {total}"
                )
            number += 1
            is_last = number == total
            if is_last:
                self._done()
            try:
                with between():
                    yield answer
            except BaseException:
                if not is_last:
                    self._refuse()
                raise
            if is_last:
                return
            answer = self._answered(Onward(), file, check, away, before=number)

    def _ordered(
        self, order: Order, file: SparseFile, check: Callable[[], None], away: Away
    ) -> SampledVideo | SampledSegment:
        self.orders += 1
        self.at_work = True
        # Once on the way to the first, and once again if a seek fails there.
        return self._answered(order, file, check, away, before=2 * order.first)

    def _answered(
        self,
        said: Order | Onward,
        file: SparseFile,
        check: Callable[[], None],
        away: Away,
        *,
        before: int,
    ) -> SampledVideo | SampledSegment:
        """What the process gives; until then it may ask for bytes, and go through segments before."""
        passing = before
        self._start_clock()
        self._say(said)
        while True:
            answer = self._hear(check)
            if isinstance(answer, Ensure):
                self._bring(answer, file, away)
            elif isinstance(answer, Passed):
                if not passing:
                    raise self._crashed("it went through more segments than there were to")
                passing -= 1
                check()
                self._start_clock()
                self._say(Onward())
            elif isinstance(answer, Failed):
                self._done(unforeseen=answer.code == InternalError.code)
                raise self._error(answer)
            elif isinstance(answer, Ready):
                raise self._crashed("it said Ready amid an order")
            else:
                return answer

    def _start_clock(self) -> None:
        self._deadline_s = time.monotonic() + self._limits.decode_timeout_s + self._grace_s

    def _done(self, *, unforeseen: bool = False) -> None:
        self.at_work = False
        self._log_printed(logging.WARNING if unforeseen else logging.DEBUG)

    def end(self) -> None:
        """Kills the process, whatever it does, and waits for its end. From any thread."""
        self._process.kill()
        self._process.wait()

    def release(self) -> None:
        """Closes this side; to be called once, by who holds it."""
        self._channel.close()
        os.close(self._stderr)

    # Talking

    def _say(self, message: Order | Onward | Present | Refused) -> None:
        try:
            self._channel.send(message)
        except ConnectionError as error:
            raise self._crashed("") from error
        except (OSError, GarbledError) as error:
            raise self._crashed(f"it cannot be told more: {error}") from error

    def _hear(self, check: Callable[[], None]) -> Heard:
        try:
            while (heard := self._channel.receive(CHECK_EVERY_S)) is None:
                check()
                if time.monotonic() > self._deadline_s:
                    raise DecodeTimeout(
                        f"decoding took more than {self._limits.decode_timeout_s:g} s and could "
                        "not be ended but by ending its process; ask for a shorter clip, or "
                        "raise the worker's decode_timeout_s"
                    )
            return self._understood(*heard)
        except EOFError as error:
            raise self._crashed("") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise self._crashed(f"it said what cannot be: {first['msg']}") from error
        except (GarbledError, UnsealedError, OSError) as error:
            raise self._crashed(f"it did not keep to the protocol: {error}") from error

    def _understood(self, body: bytes, descriptor: int | None) -> Heard:
        try:
            message = FROM_PROCESS.validate_json(body)
            if not isinstance(message, Sampled):
                return message
            if descriptor is None:
                raise GarbledError("frames came without their pixels")
            return self._assembled(message, descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _assembled(self, message: Sampled, descriptor: int) -> SampledVideo | SampledSegment:
        shapes = [shape_of(note) for note in message.frames]
        most = self._limits.max_pixels
        if any(height * width > most for height, width, _ in shapes):
            raise GarbledError(f"a frame has more than {most} pixels")
        total = sum(3 * height * width for height, width, _ in shapes)
        if total > max(3 * most, self._limits.max_frames_bytes):
            raise GarbledError(f"frames of {total} bytes")
        texts = (message.info.codec, message.info.format, *(w.message for w in message.warnings))
        if sum(len(text or "") for text in texts) > MAX_TEXT:
            raise GarbledError(f"more than {MAX_TEXT} characters about the frames")
        frames = tuple(
            Frame(note.index, note.pts_s, note.exact, pixels, note.asked_s)
            for note, pixels in zip(message.frames, map_arrays(descriptor, shapes), strict=True)
        )
        video = SampledVideo(frames, message.info, message.warnings)
        note = message.segment
        if note is None:
            return video
        return SampledSegment(note.number, note.total, note.start_s, note.end_s, video)

    def _bring(self, wanted: Ensure, file: SparseFile, away: Away) -> None:
        """Off the clock, with the turn given to another."""
        begun_s = time.monotonic()
        try:
            with away():
                file.ensure(_within(wanted, file.size_bytes))
        except Exception:
            self._refuse()
            raise
        self._deadline_s += time.monotonic() - begun_s
        self._say(Present(spans=tuple(file.present)))

    def _refuse(self) -> None:
        """Lets the process end its order; if it does not, it stays `at_work`."""
        self._deadline_s = time.monotonic() + _REFUSED_TIMEOUT_S
        with suppress(SamplingError):
            self._say(Refused())
            while isinstance(self._hear(lambda: None), Ensure):
                self._say(Refused())
            self.at_work = False

    # Its end

    def _error(self, failed: Failed) -> VideoQAError:
        kind = REGISTRY.get(failed.code)
        if kind is None or not issubclass(kind, SamplingError | InternalError):
            return self._crashed(f"it failed with {failed.code!r}")
        return kind(failed.message, param=failed.param)

    def _crashed(self, why: str) -> DecoderCrashed:
        """Tells how it ended; it stays `at_work`, and so will be buried."""
        if not why:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_REFUSED_TIMEOUT_S)  # its socket closes before it has ended
            why = _end_of(self._process.poll())
        printed = self._log_printed(logging.WARNING)
        if printed and (self._process.returncode or 0) > 0:
            why += f" ({printed.splitlines()[-1][:200]})"  # Python's error, at the start
        return DecoderCrashed(f"the decoding process failed: {why}; the worker goes on")

    def _log_printed(self, level: int) -> str:
        """What the process wrote to stderr since last time."""
        text = ""
        with suppress(BlockingIOError):
            text = os.read(self._stderr, 1 << 16).decode("utf-8", "replace").strip()
        if text:
            log.log(level, "decoding process %d printed: %s", self.pid, json.dumps(text))
        return text


def _within(wanted: Ensure, size_bytes: int) -> list[tuple[int, int]]:
    return [(start, min(end, size_bytes)) for start, end in wanted.spans if start < size_bytes]


def _end_of(code: int | None) -> str:
    if code is None:
        return "it closed its socket"
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ": out of memory, perhaps" if name == "SIGKILL" else ""
    return f"it was ended by {name}{hint}"


def _lossy_pipe() -> tuple[int, int]:
    """What is printed while its 64 KB are full is lost, so that no video can block on it."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    os.set_blocking(theirs, False)
    return ours, theirs


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }
    # BLAS is imported with NumPy and not used: a thread and 40 MB of address space a core less.
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # glibc otherwise takes pictures from its heap once it has seen some, and keeps what lies between
    # them: 855 MB of address space instead of 639 for segments of 276 MB.
    return {**kept, **one_thread, "MALLOC_MMAP_THRESHOLD_": str(256 << 10)}
