"""Summary: one answer about all segments' answers, by the model that gave them.

The prompt is text alone: each segment's times and answers. Where that is longer than the model's
context, each half is summarized, and then the two summaries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from videoqa.contract import IMAGE_MARK, VIDEO_MARK, Answer, Segment
from videoqa.errors import ModelServerError, PromptTooLong

__all__ = ["SUMMARY_ID", "Note", "notes_of", "summarized", "written"]

SUMMARY_ID = "summary"
"""The summary's `question_id`."""
_TOO_LONG = (PromptTooLong, ModelServerError)
"""Servers say in words of their own why they refuse a question; a shorter one is worth a try."""
_HEAD = "These are notes on a video, in the order of time:"

Note = tuple[float, float, str]
"""Start and end in seconds, and what is seen in between."""
Ask = Callable[[str], Answer]


def notes_of(segments: Sequence[Segment]) -> list[Note]:
    return [(part.start, part.end, " ".join(part.text.split())) for part in segments]


def written(question: str, notes: Sequence[Note]) -> str:
    """The prompt. What the model said may look like a mark for a video, and is none here."""
    lines = [f"{_clock(start)} to {_clock(end)}: {text}" for start, end, text in notes]
    text = "\n".join([_HEAD, *lines, "", question])
    for mark in (VIDEO_MARK, IMAGE_MARK):
        text = text.replace(mark, mark.strip("<>"))
    return text


def summarized(question: str, notes: Sequence[Note], ask: Ask, *, again: bool = True) -> Answer:
    """What the model says to the question and the notes.

    Raises:
        PromptTooLong, ModelServerError: not even two notes fit its context.
    """
    try:
        return ask(written(question, notes))
    except _TOO_LONG:
        if len(notes) < 2 or not again:
            raise
    middle = len(notes) // 2
    halves = [notes[:middle], notes[middle:]]
    both = [
        (half[0][0], half[-1][1], " ".join(summarized(question, half, ask).text.split()))
        for half in halves
    ]
    return summarized(question, both, ask, again=False)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
