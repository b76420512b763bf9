"""Segments: a long video answered segment by segment, in one pass, with a checkpoint after each.

While the model answers about some segments, the frames of the next are taken. An answered
segment is kept in the job's record, and an attempt that follows begins behind the last of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from videoqa.contract import FrameUsed, JobRequest, Sampling, Segment, Video
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.engine import Generated
from videoqa_worker.frames import SampledSegment, warn_if_fewer
from videoqa_worker.job.cancellation import JobControl
from videoqa_worker.job.draft import Outcome, Report, about, seen
from videoqa_worker.job.questions import Asking
from videoqa_worker.prompt import PreparedMedia
from videoqa_worker.sources import LocalCopy

__all__ = ["Checkpoints", "NoCheckpoints", "Segments"]

AHEAD = 8
"""Segments that are asked about at a time: they share the engine's steps, and as many may have to be
asked again if the worker is killed."""


class Checkpoints(Protocol):
    """Where answered segments are kept for the next attempt."""

    def load(self) -> list[Segment]:
        """What earlier attempts answered, from the first segment on."""

    def save(self, segment: Segment) -> None: ...


class NoCheckpoints:
    """Every attempt begins at the first segment."""

    def load(self) -> list[Segment]:
        return []

    def save(self, segment: Segment) -> None:
        pass


@dataclass(frozen=True)
class _Asked:
    """A segment whose answers are on their way. Without its pixels: the prompts have what they need."""

    number: int
    total: int
    start: float
    end: float
    frames: tuple[FrameUsed, ...]
    answers: list[Future[Generated]]

    @property
    def is_answered(self) -> bool:
        return all(future.done() for future in self.answers)


class Segments:
    """One attempt at the only video of a job."""

    def __init__(
        self,
        request: JobRequest,
        outcome: Outcome,
        decoders: Decoders,
        asking: Asking,
        control: JobControl,
        report: Report,
        checkpoints: Checkpoints,
    ) -> None:
        self._request, self._outcome = request, outcome
        self._decoders, self._asking = decoders, asking
        self._control, self._report = control, report
        self._checkpoints = checkpoints
        self._pending: deque[_Asked] = deque()
        self._fresh_from = 0
        """Segments that no attempt came to."""

    def run(self, item: Video, copy: LocalCopy, sampling: Sampling) -> None:
        """Asks all questions about all segments that are not answered yet; see `finish`."""
        done = self._checkpoints.load()
        self._outcome.segments.extend(done)
        for part in done:
            self._outcome.note_warnings(0, warn_if_fewer(sampling.cap, len(part.frames)))
        self._fresh_from = len(done) + AHEAD
        taken = self._taken(item, copy, sampling, first=len(done))
        with closing(taken):
            for segment in taken:
                self._outcome.note_warnings(0, segment.video.warnings)
                if segment.number >= len(done):  # else it only tells what the source is
                    self._ask(segment)
                    self._settle(leaving=AHEAD - 1)
                last = segment.video.info
        self._outcome.note_source(item, copy, last)

    def finish(self) -> None:
        """Waits for the last answers; the video is not needed for them."""
        self._settle(leaving=0)

    def _taken(
        self, item: Video, copy: LocalCopy, sampling: Sampling, first: int
    ) -> Generator[SampledSegment]:
        """The frames of each segment, and on the clock of sampling only while they are taken."""
        with closing(
            self._decoders.segments(
                copy, sampling,
                start=item.start, end=item.end, first=first, check=self._control.check,
            )
        ) as segments:  # fmt: skip
            while True:
                waited_s = copy.waited_s
                with self._outcome.timing("sampling"), about("inputs.0.url"):
                    segment = next(segments, None)
                self._outcome.count_as_fetching(copy.waited_s - waited_s)
                if segment is None:
                    return
                yield segment

    def _ask(self, segment: SampledSegment) -> None:
        media, used = seen(0, "video", segment.video)
        prepared = PreparedMedia([media])
        with self._outcome.timing("generating"):
            answers = [
                self._asking.ask(
                    prepared,
                    question.text,
                    f"questions.{n}.text",
                    is_fresh=segment.number >= self._fresh_from,
                )
                for n, question in enumerate(self._request.questions)
            ]
        self._pending.append(
            _Asked(segment.number, segment.total, segment.start_s, segment.end_s, used, answers)
        )

    def _settle(self, leaving: int) -> None:
        """Keeps what is answered, in order; waits until no more than `leaving` are on their way."""
        while self._pending and (len(self._pending) > leaving or self._pending[0].is_answered):
            with self._outcome.timing("generating"):
                self._keep(self._pending.popleft())

    def _keep(self, asked: _Asked) -> None:
        answers = tuple(
            self._asking.answer(future, question.id, question.text, f"questions.{n}.text")
            for n, (question, future) in enumerate(
                zip(self._request.questions, asked.answers, strict=True)
            )
        )
        segment = Segment(
            number=asked.number,
            start=round(asked.start, 6),
            end=round(asked.end, 6),
            answers=answers,
            frames=asked.frames,
        )
        self._checkpoints.save(segment)
        self._outcome.segments.append(segment)
        if self._request.stream:
            for answer in answers:
                self._report(
                    "generating",
                    question_id=answer.question_id,
                    text=answer.text,
                    start=segment.start,
                )
        self._report("generating", done=asked.number + 1, total=asked.total)
