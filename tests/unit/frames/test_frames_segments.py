"""A video in segments: each has the frames that it would have as a clip of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from support.decoding import assert_same
from support.sparse_files import SparseCopy, write_long_clip
from support.videos import Recipe

from videoqa.contract import Sampling
from videoqa.errors import (
    ClipOutOfRange,
    DecodeTimeout,
    FramesTooLarge,
    TooManySegments,
    VideoTruncated,
)
from videoqa_worker.frames import DecodeBudget, SampledSegment, sample_frames, sample_segments
from videoqa_worker.frames.decode.walk import Walk
from videoqa_worker.frames.selection.clip import Clip, to_fraction
from videoqa_worker.frames.selection.instants import cut_segments
from videoqa_worker.settings import FrameLimits

MakeClip = Callable[[Recipe], Path]
BASE = Recipe(frames=130)  # 5.2 s
UNEVEN = tuple(Fraction(sum((20, 40, 100, 400)[k % 4] for k in range(n)), 1000) for n in range(40))
CLIPS = {
    "mp4": BASE,
    "mp4, one keyframe": replace(BASE, gop=250),
    "mkv, uneven": replace(BASE, name="clip.mkv", frames=40, times_s=UNEVEN),
    "webm, VP9": replace(BASE, name="clip.webm", codec="libvpx-vp9", b_frames=0, frames=60),
    "ts": replace(BASE, name="clip.ts"),
    "gif": replace(BASE, name="clip.gif", codec="gif", pixel_format="rgb8", b_frames=0, frames=60),
    "raw H.264": replace(BASE, name="clip.h264", format="h264"),
    "turned": replace(BASE, turned_degrees=90),
}
ASKED = [
    Sampling(method="segment", segment_s=1.5, frames=4),
    Sampling(method="segment", segment_s=1.5, overlap_s=0.5, frames=3),
    Sampling(method="segment", segment_s=1, overlap_s=0.8, frames=2),
    Sampling(method="segment", segment_s=100),
]


@pytest.mark.parametrize("sampling", ASKED, ids=lambda s: f"{s.segment_s}-{s.overlap_s}")
@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("clip", [(None, None), (0.4, 2.0)], ids=["whole", "a part"])
def test_each_segment_has_the_frames_of_its_own_clip(
    kind: str,
    sampling: Sampling,
    clip: tuple[float | None, float | None],
    make_clip: MakeClip,
) -> None:
    path = make_clip(CLIPS[kind])
    start, end = clip
    found = list(sample_segments(path, sampling, start=start, end=end))
    assert [segment.number for segment in found] == list(range(found[0].total))
    alone = Sampling(frames=sampling.cap)
    for segment in found:
        assert_same(
            segment.video, sample_frames(path, alone, start=segment.start_s, end=segment.end_s)
        )


@pytest.mark.parametrize(
    ("length_s", "overlap_s", "clip", "spans"),
    [
        (10, 0, (0, 30), [(0, 10), (10, 20), (20, 30)]),
        (10, 0, (5, 33), [(5, 15), (15, 25), (25, 33)]),
        (10, 0, (0, 20.9), [(0, 10), (10, 20.9)]),  # a tenth brings enough that is new
        (10, 0, (0, 21), [(0, 10), (10, 20), (20, 21)]),
        (30, 10, (0, 60), [(0, 30), (20, 50), (40, 60)]),
        (30, 10, (0, 52.9), [(0, 30), (20, 52.9)]),
        (10, 0, (0, 3), [(0, 3)]),
        (10, 0, (0, 0.1), [(0, 0.1)]),
        (10, 9, (0, 13), [(0, 10), (1, 11), (2, 12), (3, 13)]),
        (0.1, 0, (0, 0.3), [(0, 0.1), (0.1, 0.2), (0.2, 0.3)]),
    ],
)
def test_segments_begin_one_after_the_other_and_the_last_ends_with_the_clip(
    length_s: float,
    overlap_s: float,
    clip: tuple[float, float],
    spans: list[tuple[float, float]],
) -> None:
    sampling = Sampling(method="segment", segment_s=length_s, overlap_s=overlap_s)
    parts = cut_segments(sampling, Clip(to_fraction(clip[0]), to_fraction(clip[1])), most=100)
    assert [(float(part.start_s), float(part.end_s)) for part in parts] == spans
    assert [part.number for part in parts] == list(range(len(spans)))


@pytest.mark.parametrize(("first", "numbers"), [(0, [0, 1, 2]), (2, [2]), (3, [2]), (99, [2])])
def test_a_later_attempt_begins_where_it_says_but_hears_of_the_video_in_any_case(
    first: int, numbers: list[int], make_clip: MakeClip
) -> None:
    path = make_clip(BASE)
    sampling = Sampling(method="segment", segment_s=2, frames=2)
    every = list(sample_segments(path, sampling))
    found = list(sample_segments(path, sampling, first=first))
    assert [segment.number for segment in found] == numbers
    for segment in found:
        assert_same(segment.video, every[segment.number].video)


def test_a_segment_comes_before_the_pictures_of_the_next_are_decoded(
    make_clip: MakeClip,
) -> None:
    path = make_clip(BASE)
    ticks = 0

    def count() -> None:
        nonlocal ticks
        ticks += 1

    after = [0]
    for _ in sample_segments(path, Sampling(method="segment", segment_s=1, frames=4), check=count):
        after.append(ticks)
    packets = [later - earlier for earlier, later in pairwise(after)][1:]
    assert len(packets) == 5
    assert all(0 < n < 60 for n in packets), "25 pictures a segment, and no second reading"


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_of_a_file_elsewhere_only_the_segments_that_are_taken_are_fetched(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    write_long_clip(path, copies=18)  # three minutes, about 30 MB
    sampling = Sampling(method="segment", segment_s=20, overlap_s=2, frames=8)
    whole, tail = SparseCopy(path, tmp_path / "whole"), SparseCopy(path, tmp_path / "tail")
    found = list(sample_segments(whole, sampling))
    last = list(sample_segments(tail, sampling, first=len(found) - 1))
    here = list(sample_segments(path, sampling))
    for ours, theirs in zip([*found, *last], [*here, here[-1]], strict=True):
        assert_same(ours.video, theirs.video)
    if name == "clip.mp4":  # so small a Matroska file has no cues, and is fetched whole
        assert tail.present.total_bytes < path.stat().st_size / 4
        assert len(whole.rounds) < 8 * len(found) / 2, "of several frames in one round"


def test_more_segments_than_the_limit_are_refused_before_any_is_taken(
    make_clip: MakeClip,
) -> None:
    sampling = Sampling(method="segment", segment_s=0.1, overlap_s=0.09)
    with pytest.raises(TooManySegments, match="expected at most 10;"):
        next(sample_segments(make_clip(BASE), sampling, limits=FrameLimits(max_segments=10)))


def test_what_overlapping_segments_hold_together_is_limited(make_clip: MakeClip) -> None:
    path = make_clip(BASE)
    limits = FrameLimits(max_frames_bytes=96 * 72 * 3 * 5)
    apart = Sampling(method="segment", segment_s=1, frames=4)
    assert len(list(sample_segments(path, apart, limits=limits))) == 6
    together = apart.model_copy(update={"overlap_s": 0.5})
    with pytest.raises(FramesTooLarge):
        next(sample_segments(path, together, limits=limits))


def test_errors_are_those_of_a_clip(make_clip: MakeClip) -> None:
    path = make_clip(replace(BASE, options={"movflags": "faststart"}))
    sampling = Sampling(method="segment", segment_s=1)
    with pytest.raises(ClipOutOfRange):
        next(sample_segments(path, sampling, start=99))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoTruncated):
        next(sample_segments(path, sampling))


def test_each_segment_has_the_decode_timeout_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("videoqa_worker.frames.budget.time.monotonic", lambda: now)
    budget = DecodeBudget(FrameLimits(decode_timeout_s=10))
    now = 9.0
    budget.restart()
    now = 18.0
    budget.tick()
    now = 20.0
    with pytest.raises(DecodeTimeout):
        budget.tick()


@pytest.mark.parametrize("first", range(6))
def test_what_lies_before_the_first_segment_has_the_timeouts_of_its_own_segments(
    first: int, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an attempt that resumes in a long unseekable file would time out on its way."""
    path = make_clip(replace(BASE, frames=300, gop=1000, codec_options={"sc_threshold": "0"}))
    sampling = Sampling(method="segment", segment_s=2, frames=4)
    every = list(sample_segments(path, sampling))
    now = 0.0
    monkeypatch.setattr("videoqa_worker.frames.budget.time.monotonic", lambda: now)

    def a_second_a_packet() -> None:
        nonlocal now
        now += 1

    limits = FrameLimits(decode_timeout_s=80)  # of 50 packets in a segment, and some on the way
    found = list(
        sample_segments(path, sampling, first=first, limits=limits, check=a_second_a_packet)
    )
    assert len(found) == 6 - first
    for segment in found:
        assert_same(segment.video, every[segment.number].video)


def test_what_is_read_again_after_a_failed_seek_has_the_timeouts_of_its_own_segments(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip(replace(BASE, frames=300, codec_options={"sc_threshold": "0"}))
    sampling = Sampling(method="segment", segment_s=2, frames=4)
    every = list(sample_segments(path, sampling))
    seek, now = Walk._seek, 0.0

    def fails_behind_8_s(walk: Walk, key: int, tick: int) -> bool:
        return key < 8 * 25 * 512 and seek(walk, key, tick)

    def a_second_a_packet() -> None:
        nonlocal now
        now += 1

    monkeypatch.setattr(Walk, "_seek", fails_behind_8_s)
    monkeypatch.setattr("videoqa_worker.frames.decode.walk._SEEK_ATTEMPTS", 1)
    monkeypatch.setattr("videoqa_worker.frames.budget.time.monotonic", lambda: now)
    limits, skipped = FrameLimits(decode_timeout_s=120), list[None]()
    found = list(
        sample_segments(
            path, sampling, limits=limits, check=a_second_a_packet,
            on_skipped=lambda: skipped.append(None),
        )
    )  # fmt: skip
    assert len(skipped) == 4, "the second segment to the fifth"
    for segment, other in zip(found, every, strict=True):
        assert_same(segment.video, other.video)


def test_segments_that_overlap_are_read_again_up_to_the_next_one(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than are before it, whoever takes the segments would not believe."""
    path = make_clip(replace(BASE, frames=300, codec_options={"sc_threshold": "0"}))
    sampling = Sampling(method="segment", segment_s=2, overlap_s=1, frames=4)
    every = list(sample_segments(path, sampling))
    seek = Walk._seek

    def fails_behind_8_s(walk: Walk, key: int, tick: int) -> bool:
        return key < 8 * 25 * 512 and seek(walk, key, tick)

    monkeypatch.setattr(Walk, "_seek", fails_behind_8_s)
    monkeypatch.setattr("videoqa_worker.frames.decode.walk._SEEK_ATTEMPTS", 1)
    skipped = list[int]()
    found = list[SampledSegment]()
    for segment in sample_segments(path, sampling, on_skipped=lambda: skipped.append(len(found))):
        found.append(segment)
    assert skipped, "no seek failed"
    assert len(skipped) <= skipped[0], "as many as are before the next"
    for again, other in zip(found, every, strict=True):
        assert_same(again.video, other.video)


def test_keyframes_are_sought_past_the_segments_before_the_first(make_clip: MakeClip) -> None:
    skipped: list[None] = []
    path = make_clip(replace(BASE, codec_options={"sc_threshold": "0"}))
    sampling = Sampling(method="segment", segment_s=0.2, frames=2)
    found = sample_segments(path, sampling, first=19, on_skipped=lambda: skipped.append(None))
    assert next(found).number == 19
    assert len(skipped) == 3, "those that begin at 3.4, 3.6 and 3.8 s, behind a keyframe at 3.36 s"


def test_a_clip_that_is_longer_than_the_video_is_noted_once(make_clip: MakeClip) -> None:
    found = list(sample_segments(make_clip(BASE), Sampling(method="segment", segment_s=2), end=99))
    codes = [[warning.code for warning in segment.video.warnings] for segment in found]
    assert codes == [[], [], ["clip_shortened"]]
