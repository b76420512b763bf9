"""Views of one job: its frames as tiles of the sheet, its attempts as bars, its texts cut to what a page holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from markupsafe import Markup, escape

from videoqa.contract import (
    Attempt,
    FrameUsed,
    Job,
    JobTimeline,
    Result,
    Segment,
    Sheet,
    SourceInfo,
)
from videoqa.errors import REGISTRY, STAGES
from videoqa.gateway.dashboard.formats import format_duration
from videoqa.gateway.dashboard.texts import TextBudget

__all__ = [
    "ANSWERS_A_PAGE",
    "SEGMENTS_A_PAGE",
    "FrameTile",
    "InputView",
    "JobView",
    "count_segments",
    "draw_attempt",
    "draw_segments",
    "draw_tile",
    "dump_raw",
    "format_instant",
    "group_tiles",
    "list_tiles",
    "make_budget",
    "name_input",
]

SEGMENTS_A_PAGE = 50
MOST_LINK = 1000
"""Characters of an address that is a link; a longer one is shown, and cut."""
ANSWERS_A_PAGE = 20
MOST_ANSWERS = 100
"""Answers on a page of segments; each segment has one to every question."""
MOST_RAW = 40_000
PAGE_BYTES, TILE_BYTES, SEGMENT_BYTES, ANSWER_BYTES = 150_000, 750, 600, 200
"""Bytes of a page that its texts and tiles share, and of the HTML around a tile, a segment and an answer."""
MOST_TILES = 128
MOST_OF_SEGMENT = 3
"""Tiles beside a segment's text."""


@dataclass(frozen=True)
class FrameTile:
    """A frame that the model saw, with its place on the sheet."""

    number: int
    """Number of the frame, from 1, among all of the job."""
    frame: FrameUsed
    left: int
    top: int


def list_tiles(result: Result) -> list[FrameTile]:
    """Returns the frames that have a tile on the sheet, in order."""
    sheet = result.sheet
    if sheet is None:
        return []
    frames = [*result.frames, *(frame for one in result.segments for frame in one.frames)]
    return [
        FrameTile(
            number + 1,
            frames[number],
            n % sheet.columns * sheet.tile_width,
            n // sheet.columns * sheet.tile_height,
        )
        for n, number in enumerate(sheet.frames[:MOST_TILES])
        if number < len(frames)
    ]


def group_tiles(
    segments: Sequence[Segment], tiles: Sequence[FrameTile]
) -> dict[int, list[FrameTile]]:
    """Returns the tiles of each segment by its number, three at most."""
    found: dict[int, list[FrameTile]] = {}
    first, left = 1, list(tiles)
    for one in segments:
        end = first + len(one.frames)
        own = [tile for tile in left if first <= tile.number < end]
        left = left[len(own) :]
        if own:
            step = max(1, -(-len(own) // MOST_OF_SEGMENT))
            found[one.number] = own[::step][:MOST_OF_SEGMENT]
        first = end
    return found


def draw_tile(sheet: Sheet, tile: FrameTile, address: str, label: str) -> Markup:
    """Cuts a tile out of the sheet's picture, which the page loads once."""
    lines = -(-len(sheet.frames) // sheet.columns)
    width, height = sheet.columns * sheet.tile_width, lines * sheet.tile_height
    return Markup(
        '<svg class="tile" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}">'
        '<svg viewBox="{left} {top} {w} {h}" width="{w}" height="{h}">'  # clips its neighbours at any shape
        '<image href="{address}" width="{width}" height="{height}"/></svg></svg>'
    ).format(
        left=tile.left, top=tile.top, w=sheet.tile_width, h=sheet.tile_height,
        label=label, address=address, width=width, height=height,
    )  # fmt: skip


def format_instant(seconds: float | None) -> str:
    """Returns an instant of a video as a player shows it, with hundredths: `1:02:03.40`."""
    if seconds is None:
        return "?"
    sign = "-" if seconds < 0 else ""
    hundredths = round(abs(seconds) * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{sign}{start}:{rest // 100:02}.{rest % 100:02}"


def draw_attempt(attempt: Attempt, most_s: float) -> Markup:
    """Draws the seconds of an attempt as a bar: the wait, each stage, and the rest."""
    parts = [("waiting", attempt.queued_s or 0.0)]
    parts += [(stage, attempt.stages[stage]) for stage in STAGES if stage in attempt.stages]
    rest_s = (attempt.running_s or 0.0) - sum(attempt.stages.values())
    parts.append(("other", max(0.0, rest_s)))
    shapes, at = [], 0.0
    for name, seconds in parts:
        width = 1000 * seconds / most_s if most_s > 0 else 0.0
        if width > 0:
            words = f"{name} {format_duration(seconds)}"
            shapes.append(
                f'<rect class="stage-{escape(name)}" x="{at:.1f}" width="{max(2.0, width):.1f}" height="16">'
                f"<title>{escape(words)}</title></rect>"
            )
        at += width
    label = ", ".join(f"{name} {format_duration(s)}" for name, s in parts if s > 0)
    return Markup(  # noqa: S704 numbers and escaped words only
        f'<svg class="attempt-bar" viewBox="0 0 1000 16" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label or "no time yet")}">{"".join(shapes)}</svg>'
    )


def draw_segments(segments: Sequence[Segment], end_s: float) -> Markup:
    """Draws the segments of a page on the time line of the whole video."""
    end_s = end_s or 1.0
    shapes = "".join(
        f'<rect class="segment" x="{1000 * one.start / end_s:.1f}" '
        f'width="{max(1.0, 1000 * (one.end - one.start) / end_s - 1):.1f}" height="12" '
        f'data-at="{one.start:.3f}"><title>{escape(format_instant(one.start))}</title></rect>'
        for one in segments
    )
    label = f"{len(segments)} segments of a video of {format_duration(end_s)}"
    return Markup(  # noqa: S704 numbers and escaped words only
        f'<svg class="segment-line" viewBox="0 0 1000 12" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}"><rect class="track" width="1000" height="12"/>{shapes}</svg>'
    )


def name_input(url: str) -> str:
    """Returns the last part of an input's path, for people."""
    return unquote(url.rstrip("/").rpartition("/")[2]) or url


def dump_raw(data: Any) -> str:
    """Returns JSON for people: numbers are written as they are, however large."""
    return json.dumps(data, ensure_ascii=False, indent=2)


def count_segments(result: Result | None) -> int:
    """Returns the segments of a page: fewer, the more questions each answers."""
    segments = result.segments if result else ()
    answers = max((len(one.answers) for one in segments), default=1)
    return max(1, min(SEGMENTS_A_PAGE, MOST_ANSWERS // max(1, answers)))


def make_budget(tiles: int, segments: Sequence[Segment]) -> TextBudget:
    """Makes the budget of the texts of a page that has so many tiles and these segments."""
    answers = sum(len(one.answers) for one in segments)
    used = tiles * TILE_BYTES + len(segments) * SEGMENT_BYTES + answers * ANSWER_BYTES
    return TextBudget(max(20_000, PAGE_BYTES - used))


@dataclass(frozen=True)
class InputView:
    """An input of the request, with what is known of its bytes."""

    number: int
    kind: str
    url: str
    """Address without credentials and query; for an uploaded file its id."""
    name: str
    """Name of an uploaded file, or the last part of the path."""
    clip: str
    """Part of the video that was asked about, in words; empty: all."""
    source: SourceInfo | None
    is_playable: bool
    is_link: bool
    """True if a browser may open the address itself."""

    @property
    def start_offset_s(self) -> float:
        """Time on a player's clock at which the first picture is shown."""
        return (self.source.start_offset_s if self.source else None) or 0.0

    has_changed: bool | None
    """True if the bytes are others than those that were read; None: it is unknown."""


@dataclass(frozen=True)
class JobView:
    """All that the page of a job shows, read at one moment."""

    timeline: JobTimeline
    job: Job
    """The job with its request."""
    inputs: tuple[InputView, ...]
    result: Result | None
    why_no_result: str
    """Reason why a succeeded job's result cannot be read; empty: it can."""

    @property
    def player(self) -> InputView | None:
        """The first input that can be played."""
        return next((one for one in self.inputs if one.is_playable and one.kind == "video"), None)

    @property
    def next_step(self) -> str:
        """Advice about the failure; empty: there is none."""
        kind = REGISTRY.get(self.job.failure.code) if self.job.failure else None
        return "" if kind is None or self.job.state == "canceled" else kind.next_step

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts, the last in front."""
        return self.timeline.attempts[::-1]

    @property
    def longest_s(self) -> float:
        """Seconds of the longest attempt, its wait included."""
        return max(
            ((one.queued_s or 0.0) + (one.running_s or 0.0) for one in self.timeline.attempts),
            default=0.0,
        )

    @property
    def end_s(self) -> float:
        """End of the last segment, in seconds of the video."""
        return max((one.end for one in self.result.segments), default=0.0) if self.result else 0.0

    def list_stages(self) -> list[tuple[str, float]]:
        """Returns the stages of all attempts with their seconds, for a legend."""
        found: dict[str, float] = {}
        for one in self.timeline.attempts:
            for stage, seconds in [("waiting", one.queued_s or 0.0), *one.stages.items()]:
                found[stage] = found.get(stage, 0.0) + seconds
        return [(name, found[name]) for name in ("waiting", *STAGES) if found.get(name)]
