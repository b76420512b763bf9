"""TextPiece: an answer's text as it is generated, and the transcript that a listener keeps of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from videoqa.contract.job import Event, Result
from videoqa.contract.model import Model

__all__ = ["AnswerKey", "TextPiece", "Transcript"]


class AnswerKey(NamedTuple):
    """Identity of one answer of a job."""

    attempt: int
    """0 for an answer about a segment: a later attempt does not repeat it."""
    question_id: str
    segment_start_s: float | None
    """Start of its segment; None: the answer is about the whole job."""


class TextPiece(Model):
    """A piece of an answer.

    All pieces of a question and attempt joined, without space around them, are the answer; a later
    attempt begins again.
    """

    question_id: str
    attempt: int
    text: str
    start: float | None = None
    """Start of the segment that the text is about, in seconds from the video's beginning; None: the job
    has no segments. A segment's answer comes whole, and a later attempt does not repeat it."""
    again: bool = False
    """True if this is the whole answer: pieces of it that came before are incomplete and void."""

    @classmethod
    def of(cls, event: Event) -> TextPiece | None:
        """Returns the piece in an event; None if the event is not one of text."""
        if event.type != "text" or not event.question_id or not event.text:
            return None
        return cls(
            question_id=event.question_id,
            attempt=event.attempt,
            text=event.text,
            start=event.start,
        )

    @property
    def answer_key(self) -> AnswerKey:
        """The answer that this is a piece of."""
        return AnswerKey(self.attempt if self.start is None else 0, self.question_id, self.start)

    @classmethod
    def of_result(cls, result: Result, heard: Mapping[AnswerKey, str]) -> list[TextPiece]:
        """Returns the answers, each whole, whose text is missing or incomplete in `heard`.

        A stream of events keeps about 1,000 entries, so a late listener may miss the first ones.
        """
        given = [(part.start, answer) for part in result.segments for answer in part.answers]
        pieces = (
            cls(
                question_id=answer.question_id,
                attempt=result.attempt,
                text=answer.text,
                start=start,
            )
            for start, answer in [*given, *((None, answer) for answer in result.answers)]
        )
        return [
            piece.model_copy(update={"again": piece.answer_key in heard})
            for piece in pieces
            if piece.answer_key not in heard
            or heard[piece.answer_key].strip() != piece.text.strip()
        ]


class Transcript:
    """The text of a job's answers as one listener has heard it."""

    def __init__(self) -> None:
        self._heard: defaultdict[AnswerKey, str] = defaultdict(str)

    def add(self, event: Event) -> list[TextPiece]:
        """Returns the piece in an event, if it has one."""
        piece = TextPiece.of(event)
        if piece is None:
            return []
        self._heard[piece.answer_key] += piece.text
        return [piece]

    def complete(self, result: Result) -> list[TextPiece]:
        """Returns the answers that were not heard, or only in part."""
        return TextPiece.of_result(result, self._heard)
