"""The very pictures that were on screen come: by time, upright, and the same on every way there.

The expected number comes straight from the definition, the actual one is read back out of
the pixels. Kinds of containers and codecs are in test_frames_kinds.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from support.videos import Recipe, read_number

from videoqa.contract import Sampling
from videoqa_worker.frames import SampledVideo, sample_frames

MakeClip = Callable[[Recipe], Path]

UNEVEN = tuple(
    Fraction(sum((20, 33, 40, 100, 400)[k * k % 5] for k in range(n)), 1000) for n in range(60)
)
BASE = Recipe()


def numbers(video: SampledVideo) -> list[int]:
    return [read_number(frame.pixels) for frame in video.frames]


def expected(
    recipe: Recipe, count: int, start: float | None = None, end: float | None = None
) -> list[int]:
    a = Fraction(str(start or 0))
    b = recipe.duration_s if end is None else Fraction(str(end))
    return sorted({recipe.number_at(a + k * (b - a) / count) for k in range(count)})


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.gif"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_variable_rate_goes_by_time_and_not_by_count(
    name: str, b_frames: int, make_clip: MakeClip
) -> None:
    times_s = UNEVEN
    recipe = replace(BASE, name=name, frames=60, times_s=times_s, b_frames=b_frames)
    if name.endswith("gif"):  # ticks of 10 ms
        times_s = tuple(Fraction(round(time_s * 100), 100) for time_s in UNEVEN)
        recipe = replace(recipe, times_s=times_s, codec="gif", pixel_format="rgb8", b_frames=0)
    path = make_clip(recipe)
    for count in (1, 8, 60):
        # No container but GIF stores how long the last picture lasts: its own word counts.
        whole_s = sample_frames(path, Sampling(frames=1)).info.duration_s
        assert whole_s == pytest.approx(float(recipe.duration_s), abs=0.1)
        video = sample_frames(path, Sampling(frames=count), end=3.7)
        assert numbers(video) == expected(recipe, count, end=3.7)
        assert all(frame.exact for frame in video.frames)
        for frame, number in zip(video.frames, numbers(video), strict=True):
            assert frame.index in (number, None)


def test_pictures_that_an_edit_list_cuts_away_do_not_exist(make_clip: MakeClip) -> None:
    recipe = replace(BASE, first_pts_s=Fraction(-1, 5), options={"avoid_negative_ts": "disabled"})
    video = sample_frames(make_clip(recipe), Sampling(frames=9))
    assert numbers(video) == [5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert [frame.index for frame in video.frames] == [0, 5, 10, 15, 20, 25, 30, 35, 40]
    assert video.info.duration_s == pytest.approx(1.8)


def test_timestamps_that_cannot_be_trusted_are_said_to_be_inexact(make_clip: MakeClip) -> None:
    recipe = replace(
        BASE,
        name="clip.mkv",
        first_pts_s=Fraction(-1, 5),
        options={"avoid_negative_ts": "disabled"},
    )
    video = sample_frames(make_clip(recipe), Sampling(frames=8))
    assert numbers(video) == expected(recipe, 8)
    assert not any(frame.exact for frame in video.frames)


def test_a_transport_stream_whose_clock_starts_over_is_read_by_count(
    make_clip: MakeClip, tmp_path: Path
) -> None:
    one = make_clip(replace(BASE, name="one.ts")).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one + one)
    video = sample_frames(joined, Sampling(frames=4))
    assert numbers(video) == [0, 25, 0, 25]
    assert not any(frame.exact for frame in video.frames)


def test_a_stream_that_appears_midway_changes_nothing(make_clip: MakeClip, tmp_path: Path) -> None:
    silent = make_clip(replace(BASE, name="silent.ts")).read_bytes()
    loud = make_clip(replace(BASE, name="loud.ts", sound_s=2)).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(silent + loud)
    for _ in range(20):  # PyAV's IndexError came now and then
        video = sample_frames(joined, Sampling(frames=4))
        assert numbers(video) == [0, 25, 0, 25]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_pictures_come_upright(
    name: str, degrees: int, mirrored: bool, make_clip: MakeClip
) -> None:
    recipe = replace(BASE, name=name, turned_degrees=degrees, mirrored=mirrored)
    video = sample_frames(make_clip(recipe), Sampling(frames=5))
    assert numbers(video) == [0, 10, 20, 30, 40]
    assert (video.info.width, video.info.height) == BASE.size
    assert all(frame.pixels.flags.c_contiguous for frame in video.frames)


def test_seeking_and_reading_forward_agree(make_clip: MakeClip) -> None:
    path = make_clip(replace(BASE, frames=200, gop=10))
    whole = sample_frames(path, Sampling(frames=200))
    for start in (0.0, 0.4, 1.23, 3.96, 7.9):
        video = sample_frames(path, Sampling(frames=2), start=start)
        for frame in video.frames:
            assert frame.index is not None
            assert (frame.pixels == whole.frames[frame.index].pixels).all()
