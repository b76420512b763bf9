"""Every kind of container and codec gives the very pictures that were on screen, or says why not.

Expected pictures come straight from the definition, a + k * (b - a) / n, and from how the clip
was made; actual ones are read back out of the pixels. Prints the accuracy table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from kinds import KINDS, Kind
from kinds.accuracy import Row, Table
from support.decoding import assert_same, outcome
from support.videos import read_number

from videoqa.contract import Sampling
from videoqa.errors import SamplingError, VideoTruncated
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.frames import CompleteFile, Frame, sample_frames, sample_segments
from videoqa_worker.frames.container import timing
from videoqa_worker.settings import FrameLimits

Clip = Callable[[str], Path]
OF_CLIPS = {"fewer_frames", "clip_shortened", "deinterlaced_alone"}
"""Warnings that depend on the frames asked for: how many came, and if one beside them was decoded."""
MATROSKA = [name for name, kind in KINDS.items() if kind.recipe.name.endswith(("mkv", "webm"))]


@pytest.fixture(scope="module")
def kind_clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Writes each kind's clip once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = KINDS[name].make(tmp_path_factory.mktemp("kind"))
        return made[name]

    return make


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    """A confined process, which has all that each kind needs although it can open no file."""
    with Decoders(FrameLimits(), processes=1) as pool:
        yield pool


@dataclass(frozen=True)
class SampledInstant:
    """The frame sampled for an instant, and the pictures that are right."""

    instant_s: Fraction
    frame: Frame
    number: int
    places: set[int]
    """Numbers of the pictures that are right, from 0."""
    right: bool


def asked_of(kind: Kind) -> Iterator[tuple[int, float | None, float | None]]:
    """Yields calls for one frame, several, more than there are, and for a clip."""
    yield from ((1, None, None), (4, None, None), (7, None, None), (8, None, None))
    yield min(len(kind.pictures) + 5, 256), None, None
    yield 5, *kind.clip_s


def sample_instants(
    kind: Kind, path: Path, count: int, start: float | None, end: float | None
) -> list[SampledInstant]:
    video = sample_frames(path, Sampling(frames=count), start=start, end=end)
    assert {frame.pixels.shape[1::-1] for frame in video.frames} <= set(kind.shown_sizes)
    assert (video.info.width, video.info.height) == video.frames[0].pixels.shape[1::-1]
    off_s = (video.info.start_offset_s or 0) - kind.offset_s
    assert abs(off_s) < 0.07, f"first picture at {video.info.start_offset_s} s of a player's clock"
    assert {warning.code for warning in video.warnings} - OF_CLIPS == set(kind.warned)
    told_s = Fraction(str(video.info.duration_s))
    if not kind.ends_early:
        off_s = abs(told_s - kind.duration_s)
        assert off_s <= kind.slack_s, f"ends at {told_s} s, not {kind.duration_s} s"
    a = Fraction(str(start or 0))
    b = told_s if end is None else min(told_s, Fraction(str(end)))
    looks = []
    for k in range(count):
        instant_s = a + k * (b - a) / count
        frame = [f for f in video.frames if f.asked_s <= float(instant_s) + 1e-9][-1]
        places = kind.places_at(instant_s)
        number = read_number(frame.pixels)
        right = any(kind.pictures[place] == number for place in places)
        looks.append(SampledInstant(instant_s, frame, number, places, right))
    return looks


def is_steady(kind: Kind) -> bool:
    """Then the index follows from the time; else it takes reading all packets to know it."""
    return len({b - a for a, b in pairwise(kind.shown_s)}) == 1 and not kind.numbers


def check(kind: Kind, seen: SampledInstant) -> None:
    frame = seen.frame
    where = f"at {float(seen.instant_s):.3f} s: {seen.number}, expected one of {seen.places}"
    assert seen.right or not frame.exact, where
    assert seen.right or kind.may_miss or kind.ends_early, where
    if kind.inexact:
        assert kind.may_miss or not frame.exact, f"{where}, and {kind.inexact}"
    else:
        assert frame.exact or kind.ends_early, where
    if kind.inexact or not seen.right:
        return
    assert frame.index in seen.places or (frame.index is None and not is_steady(kind))
    near_s = [float(kind.shown_s[place]) for place in seen.places]
    # Matroska and FLV round the first picture and this one to a millisecond each.
    assert min(abs(frame.pts_s - time_s) for time_s in near_s) <= 0.0011


def errors_of(kind: Kind) -> tuple[type[SamplingError], ...]:
    if kind.refused is not None:
        return (kind.refused,)
    return (VideoTruncated,) if kind.ends_early else ()


def row_of(name: str, path: Path) -> Row:
    kind, looks, refused = KINDS[name], list[SampledInstant](), ""
    for count, start, end in asked_of(kind):
        try:
            looks += sample_instants(kind, path, count, start, end)
        except errors_of(kind) as error:
            refused = error.code
    for seen in looks:
        check(kind, seen)
    assert not (kind.refused and looks)
    return Row(
        name,
        right=sum(seen.right for seen in looks),
        asked=len(looks),
        exact=sum(seen.frame.exact for seen in looks),
        indexed=sum(seen.frame.index is not None for seen in looks),
        refused=refused,
    )


@pytest.mark.parametrize("name", KINDS)
def test_the_pictures_on_screen_come(
    name: str, kind_clip: Clip, accuracy_table: Table, decoders: Decoders
) -> None:
    path, sampling = kind_clip(name), Sampling(frames=4)
    row = row_of(name, path)
    accuracy_table.add(row)
    assert row.asked or row.refused
    confined = outcome(lambda: decoders.sample(CompleteFile(path), sampling))
    assert_same(confined, outcome(lambda: sample_frames(path, sampling)))


@pytest.mark.parametrize("name", MATROSKA)
def test_the_same_pictures_come_by_the_cues_of_a_large_file(
    name: str, kind_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cues tell of keyframes alone, so what other packets contradict cannot be known."""
    monkeypatch.setattr(timing, "SCAN_BELOW_BYTES", 0)
    for count, start, end in asked_of(KINDS[name]):
        with suppress(*errors_of(KINDS[name])):
            for seen in sample_instants(KINDS[name], kind_clip(name), count, start, end):
                assert seen.right or not seen.frame.exact


def test_a_table_of_wrong_pictures_could_not_pass(kind_clip: Clip) -> None:
    name = "B-frames"
    late = replace(KINDS[name], numbers=tuple(range(1, 51)))
    (seen,) = sample_instants(late, kind_clip(name), 1, None, None)
    with pytest.raises(AssertionError, match="0, expected one of"):
        check(late, seen)


@pytest.mark.parametrize("name", KINDS)
def test_segments_have_the_pictures_of_their_own_clips(name: str, kind_clip: Clip) -> None:
    path = kind_clip(name)
    sampling = Sampling(method="segment", segment_s=0.7, overlap_s=0.3, frames=4)
    try:
        found = list(sample_segments(path, sampling))
    except SamplingError as error:
        with pytest.raises(type(error)):
            sample_frames(path, Sampling(frames=8))
        return
    for segment in found:
        alone = sample_frames(
            path, Sampling(frames=4), start=segment.start_s, end=segment.end_s
        ).frames
        for ours, theirs in zip(segment.video.frames, alone, strict=True):
            if ours.exact and theirs.exact:
                assert ours.pts_s == theirs.pts_s
                assert (ours.pixels == theirs.pixels).all()
            else:  # one pass may know less than a look at the clip alone, and says so
                assert not ours.exact
