"""Summary: one answer about all segments' answers, by the model that gave them.

The prompt is text alone: each segment's times and answers. Where that is longer than the model's
context, each half is summarized, and then the two summaries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from videoqa.contract import IMAGE_MARK, VIDEO_MARK, Answer, Segment
from videoqa.errors import ModelServerError, PromptTooLong

__all__ = ["SUMMARY_ID", "Note", "hide_marks", "list_notes", "summarize", "write_prompt"]

SUMMARY_ID = "summary"
"""The summary's `question_id`."""
_TOO_LONG = (PromptTooLong, ModelServerError)
"""Errors after which a shorter prompt is tried: servers refuse a question in words of their own."""
_HEAD = "These are notes on a video, in the order of time:"

Note = tuple[float, float, str]
"""Start and end of a segment in seconds, and its answers' text."""
Ask = Callable[[str], Answer]


def list_notes(segments: Sequence[Segment]) -> list[Note]:
    return [(part.start, part.end, " ".join(part.text.split())) for part in segments]


def write_prompt(question: str, notes: Sequence[Note]) -> str:
    """Returns the prompt; text of the model that looks like a mark for a video is made none."""
    lines = [f"{_format_time(start)} to {_format_time(end)}: {text}" for start, end, text in notes]
    return hide_marks("\n".join([_HEAD, *lines, "", question]))


def hide_marks(text: str) -> str:
    """Returns the text with no marks of inputs: nothing stands there for the model's own words."""
    for mark in (VIDEO_MARK, IMAGE_MARK):
        text = text.replace(mark, mark.strip("<>"))
    return text


def summarize(question: str, notes: Sequence[Note], ask: Ask, *, again: bool = True) -> Answer:
    """Returns the model's answer to the question about the notes.

    Arguments:
        again: halve the notes if they are too long; False for notes that are summaries already.

    Raises:
        PromptTooLong, ModelServerError: not even two notes fit the model's context.
    """
    try:
        return ask(write_prompt(question, notes))
    except _TOO_LONG:
        if len(notes) < 2 or not again:
            raise
    middle = len(notes) // 2
    halves = [notes[:middle], notes[middle:]]
    both = [
        (half[0][0], half[-1][1], " ".join(summarize(question, half, ask).text.split()))
        for half in halves
    ]
    return summarize(question, both, ask, again=False)


def _format_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
