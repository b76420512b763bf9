"""Summary: one answer about all segments' answers, by the model that gave them.

The prompt is text alone: each segment's times and answers. Where that is longer than the model's
context, as many groups of segments are summarized as it takes, and then their summaries, in as many levels as it takes.
A server does not tell by how much a prompt is too long; then each half is summarized.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from videoqa.contract import IMAGE_MARK, VIDEO_MARK, Answer, Segment
from videoqa.errors import GenerationError, ModelServerError, PromptTooLong

__all__ = ["SUMMARY_ID", "Note", "hide_marks", "list_notes", "summarize", "write_prompt"]

SUMMARY_ID = "summary"
"""The summary's `question_id`."""
_TOO_LONG = (PromptTooLong, ModelServerError)
"""Errors after which a shorter prompt is tried: servers refuse a question in words of their own."""
_MARGIN = 1.1
"""Groups are not of equal length, and each prompt has the question."""
_TIMES_LENGTH = 20
"""Characters of a note's times."""
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


def summarize(question: str, notes: Sequence[Note], ask: Ask) -> Answer:
    """Returns the model's answer to the question about the notes.

    Raises:
        PromptTooLong, ModelServerError: not even two notes fit the model's context.
    """
    try:
        return ask(write_prompt(question, notes))
    except _TOO_LONG as error:
        if len(notes) < 2:
            raise
        groups = _split(notes, _count_groups(error, len(notes)))
    summaries = [
        (group[0][0], group[-1][1], " ".join(summarize(question, group, ask).text.split()))
        for group in groups
    ]
    if len(summaries) < len(notes):
        return summarize(question, summaries, ask)
    return ask(write_prompt(question, summaries))


def _count_groups(error: GenerationError, notes: int) -> int:
    """Returns the number of groups of notes that should fit; of a prompt whose length is not known, halves."""
    if not isinstance(error, PromptTooLong) or error.excess is None:
        return 2
    return max(2, min(math.ceil(error.excess * _MARGIN), -(-notes // 2)))


def _split(notes: Sequence[Note], count: int) -> list[Sequence[Note]]:
    """Returns about so many groups of consecutive notes, at least two, with about as much text each."""
    ends = list(itertools.accumulate(len(text) + _TIMES_LENGTH for _, _, text in notes))
    groups: dict[int, list[Note]] = {}
    for note, end in zip(notes, ends, strict=True):
        groups.setdefault((end - 1) * count // ends[-1], []).append(note)
    if len(groups) > 1:
        return list(groups.values())
    middle = len(notes) // 2
    return [notes[:middle], notes[middle:]]


def _format_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
