"""Arranges media and text in the order of the prompt, by the marks in the question.

Knows no processor and no model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from videoqa.contract import IMAGE_MARK, VIDEO_MARK
from videoqa.errors import MarkMismatch, UnsupportedInput
from videoqa_worker.prompt.prepared_media import FrameInput

__all__ = ["PromptPart", "arrange"]

MARK = re.compile(f"({re.escape(VIDEO_MARK)}|{re.escape(IMAGE_MARK)})")


@dataclass(frozen=True, eq=False)
class PromptPart:
    """A picture, a video or a text, in the order of the prompt."""

    kind: Literal["text", "image", "video"]
    text: str = ""
    frames: tuple[np.ndarray, ...] = ()
    times_s: tuple[float, ...] | None = None
    """Time of each frame of a video in seconds, if it is known."""
    duration_s: float | None = None
    """Length of the whole video, if it is known."""


def arrange(media: Sequence[FrameInput], question: str) -> Iterator[PromptPart]:
    """Yields media and text in the order of the prompt."""
    marks = Counter(mark.strip("<>") for mark in MARK.findall(question))
    if not marks:
        yield from map(_make_part, media)
        yield PromptPart("text", question)
        return
    marked = next(
        (names for names in _name_kinds(media) if Counter(names) == marks), None
    )  # fmt: skip
    if marked is None:
        have = Counter(item.kind for item in media)
        raise MarkMismatch(
            f"got {marks['video']} <video> and {marks['image']} <image> marks for {have['video']} "
            f"videos and {have['image']} images; place each input once, or leave the marks out"
        )
    waiting = {
        kind: iter([item for item, name in zip(media, marked, strict=True) if name == kind])
        for kind in ("image", "video")
    }
    for text in MARK.split(question):
        if MARK.fullmatch(text):
            yield _make_part(next(waiting[text.strip("<>")]))
        else:
            yield PromptPart("text", text)


def _name_kinds(media: Sequence[FrameInput]) -> Iterator[list[str]]:
    """Yields the kinds by which marks may place the media: as the request names them, and as their bytes are."""
    yield [item.asked or item.kind for item in media]
    yield [item.kind for item in media]


def _make_part(item: FrameInput) -> PromptPart:
    """Returns the part of an input.

    Raises:
        UnsupportedInput: it has no frames, or an image has several.
    """
    if not item.frames or (item.kind == "image" and len(item.frames) > 1):
        raise UnsupportedInput(
            f"got {len(item.frames)} frames for one {item.kind}, expected "
            f"{'exactly 1' if item.kind == 'image' else 'at least 1'}"
        )
    return PromptPart(item.kind, "", item.frames, item.pts_s, item.duration_s)
