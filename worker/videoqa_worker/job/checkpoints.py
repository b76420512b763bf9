"""Checkpoints: answered segments, kept in Redis beside the job's record for its next attempt."""

from __future__ import annotations

from typing import Protocol

from videoqa.contract import Segment
from videoqa_worker.job.claims import HeldJob

__all__ = ["KEPT_BYTES", "Checkpoints", "NoCheckpoints", "RecordCheckpoints"]

KEPT_BYTES = 16 << 20
"""JSON of a job's answered segments in Redis: 8 KB each for `max_segments`. Answers of 4,096
tokens to 64 questions would be 2 GB; what is beyond this is asked again by the next attempt."""


class Checkpoints(Protocol):
    """Storage of answered segments between two attempts."""

    def load(self) -> list[Segment]:
        """Returns the segments that earlier attempts answered, from the first on."""

    def save(self, segment: Segment) -> bool:
        """Keeps an answered segment; returns False if it has not, and has told no reader of a stream."""


class NoCheckpoints:
    """No storage: every attempt begins at the first segment."""

    def load(self) -> list[Segment]:
        return []

    def save(self, segment: Segment) -> bool:
        return False


class RecordCheckpoints:
    """Storage beside the record of a claimed job."""

    def __init__(self, job: HeldJob, fingerprint: str) -> None:
        """
        Arguments:
            fingerprint: of all that decides the answers; segments under another one are not used.
        """
        self._job, self._fingerprint = job, fingerprint
        self._room_bytes = KEPT_BYTES

    def load(self) -> list[Segment]:
        found = self._job.load_segments(self._fingerprint)
        self._room_bytes -= sum(len(segment.model_dump_json()) for segment in found)
        texts = [question.text for question in self._job.claim.request.questions]
        return [_set_questions(segment, texts) for segment in found]

    def save(self, segment: Segment) -> bool:
        # The record has the questions' texts already, as its request.
        bare = _set_questions(segment, [""] * len(segment.answers))
        self._room_bytes -= len(bare.model_dump_json())
        if (
            self._room_bytes < 0
        ):  # then none of the later ones either: behind a gap they are of no use
            return False
        self._job.save_segment(self._fingerprint, bare)
        return True


def _set_questions(segment: Segment, texts: list[str]) -> Segment:
    answers = tuple(
        answer.model_copy(update={"question": text})
        for text, answer in zip(texts, segment.answers, strict=True)
    )
    return segment.model_copy(update={"answers": answers})
