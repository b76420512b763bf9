"""The sampling methods: each takes the pictures that its formula names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from support.videos import Recipe, read_number

from videoqa.contract import Sampling
from videoqa.errors import ClipOutOfRange
from videoqa_worker.frames import SampledVideo, sample_frames

MakeClip = Callable[[Recipe], Path]

FOUR_SECONDS = Recipe(
    frames=100, codec_options={"sc_threshold": "0"}
)  # 25 a second, a keyframe every 12 pictures


def numbers(video: SampledVideo) -> list[int]:
    """Reads the numbers that are burnt in; each index must be the same."""
    found = [read_number(frame.pixels) for frame in video.frames]
    assert found == [frame.index for frame in video.frames]
    return found


def test_fps_takes_a_picture_each_so_many_seconds(make_clip: MakeClip) -> None:
    video = sample_frames(make_clip(FOUR_SECONDS), Sampling(method="fps", fps=2))
    assert numbers(video) == [0, 12, 25, 37, 50, 62, 75, 87]
    assert [frame.asked_s for frame in video.frames] == [k / 2 for k in range(8)]
    assert video.warnings == ()


def test_fps_counts_from_the_clips_start_and_stops_before_its_end(make_clip: MakeClip) -> None:
    path = make_clip(FOUR_SECONDS)
    video = sample_frames(path, Sampling(method="fps", fps=1), start=0.5, end=2.5)
    assert numbers(video) == [12, 37]


def test_fps_beyond_its_cap_spreads_the_cap_evenly_and_says_so(make_clip: MakeClip) -> None:
    video = sample_frames(make_clip(FOUR_SECONDS), Sampling(method="fps", fps=5, frames=4))
    assert numbers(video) == [0, 25, 50, 75]
    (warning,) = video.warnings
    assert warning.code == "frames_capped"
    assert "20 frames, expected at most 4" in warning.message


def test_times_are_taken_in_order_each_once(make_clip: MakeClip) -> None:
    sampling = Sampling(method="times", times=(3.0, 0.1, 3.99, 0.1))
    video = sample_frames(make_clip(FOUR_SECONDS), sampling)
    assert numbers(video) == [2, 75, 99]


@pytest.mark.parametrize(("times", "said"), [((5.0,), "5.000 s"), ((0.0, 1.0), "0.000 s")])
def test_a_time_outside_the_clip_is_refused(
    times: tuple[float, ...], said: str, make_clip: MakeClip
) -> None:
    sampling = Sampling(method="times", times=times)
    with pytest.raises(ClipOutOfRange, match=rf"time {said}, expected times from 0\.500 to 3\."):
        sample_frames(make_clip(FOUR_SECONDS), sampling, start=0.5, end=3.5)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.flv"])
def test_keyframes_are_the_nearest_ones_and_say_how_far_they_are(
    name: str, make_clip: MakeClip
) -> None:
    path = make_clip(replace(FOUR_SECONDS, name=name))
    video = sample_frames(path, Sampling(method="keyframe", frames=4))
    assert numbers(video) == [0, 24, 48, 72]  # asked for 0, 25, 50, 75
    asked = [frame.asked_s for frame in video.frames]
    assert asked == pytest.approx([0, 1, 2, 3], abs=0.02)
    assert [frame.exact for frame in video.frames] == [True, False, False, False]


def test_a_keyframe_beyond_the_tolerance_gives_way_to_the_exact_picture(
    make_clip: MakeClip,
) -> None:
    sampling = Sampling(method="keyframe", frames=4, tolerance_s=0.05)
    video = sample_frames(make_clip(FOUR_SECONDS), sampling)
    assert numbers(video) == [0, 24, 50, 75]
    assert [frame.exact for frame in video.frames] == [True, False, True, True]


def test_an_exact_picture_after_a_keyframe_of_the_same_gop_is_whole(make_clip: MakeClip) -> None:
    sampling = Sampling(method="keyframe", frames=20, tolerance_s=0.041)
    video = sample_frames(make_clip(replace(FOUR_SECONDS, gop=25)), sampling)
    assert numbers(video) == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80,
                              85, 90, 95]  # fmt: skip


def test_a_container_that_hides_its_keyframes_gives_exact_pictures(make_clip: MakeClip) -> None:
    path = make_clip(Recipe(name="clip.avi", frames=100, codec="mpeg4", b_frames=0))
    video = sample_frames(path, Sampling(method="keyframe", frames=4))
    assert numbers(video) == [0, 25, 50, 75]
    assert [warning.code for warning in video.warnings] == ["no_keyframes"]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(frames=120, b_frames=3),
        Recipe(frames=120, b_frames=3, codec_options={"b-pyramid": "strict", "refs": "4"}),
        Recipe(frames=120, b_frames=3, gop=50, codec="libx265"),
        Recipe(
            frames=120,
            b_frames=3,
            gop=50,
            codec="libx265",
            codec_options={"x265-params": "log-level=none:temporal-layers=1"},
        ),
        Recipe(name="clip.mpg", frames=120, codec="mpeg2video", gop=15),
        Recipe(name="clip.mp4", frames=120, codec="mpeg4", gop=40),
        Recipe(name="clip.mkv", frames=120, b_frames=3),
        Recipe(
            frames=120,
            b_frames=3,
            times_s=tuple(Fraction(n * 40 + (n * 7919 % 31), 1000) for n in range(120)),
        ),
    ],
    ids=["h264", "pyramid", "hevc", "hevc-layers", "mpeg2", "mpeg4", "mkv", "vfr"],
)
@pytest.mark.parametrize("count", [3, 7, 16, 40])
def test_leaving_pictures_out_changes_no_pixel(
    recipe: Recipe, count: int, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip(recipe)
    quick = sample_frames(path, Sampling(frames=count))
    monkeypatch.setattr("videoqa_worker.frames.decode.skip._marks_nonref", lambda video: False)
    monkeypatch.setattr(
        "videoqa_worker.frames.decode.walk.Walk._is_last_before_seek", lambda self, tick: False
    )
    full = sample_frames(path, Sampling(frames=count))
    assert [f.pts_s for f in quick.frames] == [f.pts_s for f in full.frames]
    for left, right in zip(quick.frames, full.frames, strict=True):
        assert (left.pixels == right.pixels).all()
        assert left.exact == right.exact
        assert left.index in (right.index, None)
