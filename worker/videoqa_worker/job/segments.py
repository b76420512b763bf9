"""Segments: a long video answered segment by segment, in one pass, with a checkpoint after each.

While the model answers about some segments, the frames of the next are taken. An answered
segment is kept in the job's record, and an attempt that follows begins behind the last of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

from videoqa.contract import FrameUsed, Segment, Video
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.frames import SampledSegment, warn_if_fewer
from videoqa_worker.job.checkpoints import Checkpoints
from videoqa_worker.job.context import AttemptContext, Progress
from videoqa_worker.job.draft import AttemptDraft, attribute_errors, convert_frames
from videoqa_worker.job.questions import AskedQuestion, QuestionSession
from videoqa_worker.prompt import FrameInput, PreparedMedia
from videoqa_worker.sources import LocalCopy

__all__ = ["AHEAD", "Segments"]

AHEAD = 8
"""Segments that are asked about at a time: they share the engine's steps, and as many may have to be
asked again if the worker is killed."""


@dataclass(frozen=True)
class _AskedSegment:
    """A segment whose answers are on their way, without its pixels: the prompts have what they need."""

    number: int
    total: int
    start: float
    end: float
    frames: tuple[FrameUsed, ...]
    questions: list[AskedQuestion]

    @property
    def is_answered(self) -> bool:
        """True if the first answers are there."""
        return all(question.future.done() for question in self.questions)


class Segments:
    """One attempt at the only video of a job."""

    def __init__(
        self,
        context: AttemptContext,
        draft: AttemptDraft,
        decoders: Decoders,
        session: QuestionSession,
        checkpoints: Checkpoints,
    ) -> None:
        self._context, self._draft = context, draft
        self._decoders, self._session = decoders, session
        self._checkpoints = checkpoints
        self._pending: deque[_AskedSegment] = deque()
        self._new_from = 0
        """Number of the first segment that no attempt came to."""

    def ask(self, item: Video, copy: LocalCopy) -> None:
        """Asks all questions about all segments that are not answered yet; see `finish`."""
        done = self._checkpoints.load()
        self._draft.segments.extend(done)
        self._context.sheet.skip(sum(len(part.frames) for part in done))
        for part in done:
            self._draft.note_warnings(0, warn_if_fewer(self._draft.sampling.cap, len(part.frames)))
        self._draft.add_warnings(self._session.warn_of([FrameInput("video", ())]))
        self._new_from = len(done) + AHEAD
        with closing(self._take_frames(item, copy, first=len(done))) as segments:
            for segment in segments:
                self._draft.note_warnings(0, segment.video.warnings)
                if segment.number >= len(done):  # else it only tells what the source is
                    self._ask_about(segment)
                    self._collect(leaving=AHEAD - 1)
                last = segment.video.info
        self._draft.note_source(item, copy, last)

    def finish(self) -> None:
        """Waits for the last answers; the video is not needed for them."""
        self._context.sheet.start_writing()
        self._collect(leaving=0)

    def _take_frames(
        self, item: Video, copy: LocalCopy, first: int
    ) -> Generator[SampledSegment, None, None]:
        """Yields the frames of each segment; counts as sampling only while they are taken."""
        with closing(
            self._decoders.segments(
                copy,
                self._draft.sampling,
                start=item.start,
                end=item.end,
                first=first,
                check=self._context.control.check,
            )
        ) as segments:
            while True:
                waited_s = copy.waited_s
                with (
                    self._draft.timing("sampling"),
                    attribute_errors("inputs.0.url"),
                    self._context.trace.stage("sample") as found,
                ):
                    segment = next(segments, None)
                    if segment is not None:
                        found |= {
                            "videoqa.segment": segment.number,
                            "videoqa.frames": len(segment.video.frames),
                        }
                self._draft.count_as_fetching(copy.waited_s - waited_s)
                if segment is None:
                    return
                yield segment

    def _ask_about(self, segment: SampledSegment) -> None:
        media, used = convert_frames(0, "video", segment.video, self._draft.sampling)
        self._draft.count_frames(used)
        prepared = PreparedMedia([media], self._context.control.check)
        with self._draft.timing("generating"):
            questions = self._session.ask_each(prepared, is_new=segment.number >= self._new_from)
        self._context.sheet.add(media.frames, segment.total * len(media.frames))
        self._pending.append(
            _AskedSegment(
                segment.number, segment.total, segment.start_s, segment.end_s, used, questions
            )
        )

    def _collect(self, leaving: int) -> None:
        """Keeps answered segments in their order; waits until no more than `leaving` are on their way."""
        while self._pending and (len(self._pending) > leaving or self._pending[0].is_answered):
            with self._draft.timing("generating"):
                self._keep(self._pending.popleft())

    def _keep(self, asked: _AskedSegment) -> None:
        """Waits for a segment's answers, saves and reports it."""
        answers = tuple(self._session.answer_each(asked.questions))
        segment = Segment(
            number=asked.number,
            start=round(asked.start, 6),
            end=round(asked.end, 6),
            answers=answers,
            frames=asked.frames,
        )
        is_told = self._checkpoints.save(segment)
        self._draft.segments.append(segment)
        report = self._context.report
        if self._context.request.stream and not is_told:
            for answer in answers:
                report(
                    Progress(
                        "generating",
                        question_id=answer.question_id,
                        text=answer.text,
                        start=segment.start,
                    )
                )
        report(Progress("generating", done=asked.number + 1, total=asked.total))
