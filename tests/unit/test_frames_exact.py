"""Every kind of container and codec gives the very pictures that were on screen.

The expected number comes straight from the definition, the actual one is read back out of
the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from fix_videos import Recipe, read_number

from videoqa.job import Sampling
from videoqa_worker.frames import SampledVideo, sample_frames

MakeClip = Callable[[Recipe], Path]

NTSC = Fraction(30_000, 1001)
UNEVEN = tuple(
    Fraction(sum((20, 33, 40, 100, 400)[k * k % 5] for k in range(n)), 1000) for n in range(60)
)
ALT_REF = {
    "auto-alt-ref": "1",
    "lag-in-frames": "10",
    "deadline": "good",
    "cpu-used": "5",
    "b": "100k",
}


def x264(params: str) -> dict[str, str]:
    return {"x264-params": params}


BASE = Recipe()
PLAIN = replace(BASE, b_frames=0)
FRAGMENTED = "frag_keyframe+empty_moov"
CLIPS = {
    "mp4, B-frames": BASE,
    "mp4, no B-frames": PLAIN,
    "mp4, index first": replace(BASE, options={"movflags": "faststart"}),
    "mp4, fragmented": replace(BASE, options={"movflags": FRAGMENTED}),
    "mp4, DASH": replace(BASE, options={"movflags": f"{FRAGMENTED}+default_base_moof+dash"}),
    "mp4, open GOPs": replace(
        BASE, frames=80, codec_options=x264("open-gop=1:keyint=12:bframes=3:b-pyramid=normal")
    ),
    "mp4, intra refresh": replace(
        BASE, frames=80, codec_options=x264("intra-refresh=1:keyint=12")
    ),
    "mp4, interlaced": replace(BASE, codec_options=x264("interlaced=1")),
    "mp4, 29.97 a second": replace(BASE, fps=NTSC, frames=100),
    "mp4, a picture every 3 s": replace(BASE, fps=Fraction(1, 3), frames=10),
    "mp4, first pts at 5 s": replace(BASE, first_pts_s=Fraction(5)),
    "mp4, HEVC": replace(BASE, codec="libx265"),
    "mp4, AV1": replace(PLAIN, codec="libsvtav1", codec_options={"preset": "12"}),
    "mp4, MPEG-4 part 2": replace(BASE, codec="mpeg4"),
    "mp4, sound longer than pictures": replace(BASE, sound_s=6),
    "mp4, odd size": replace(BASE, size=(101, 75), pixel_format="yuv444p"),
    "mov": replace(BASE, name="clip.mov"),
    "mkv, B-frames": replace(BASE, name="clip.mkv", frames=80),
    "mkv, sound longer than pictures": replace(BASE, name="clip.mkv", sound_s=6),
    "mkv, 60 a second": replace(BASE, name="clip.mkv", fps=Fraction(60), frames=100),
    "mkv, first pts at 5 s": replace(BASE, name="clip.mkv", first_pts_s=Fraction(5)),
    "webm, VP9": replace(
        PLAIN, name="clip.webm", codec="libvpx-vp9", codec_options={**ALT_REF, "cpu-used": "8"}
    ),
    "webm, VP8": replace(PLAIN, name="clip.webm", codec="libvpx"),
    "webm, VP8 with hidden frames": replace(
        PLAIN, name="clip.webm", codec="libvpx", codec_options=ALT_REF
    ),
    "webm, odd size": replace(PLAIN, name="clip.webm", codec="libvpx", size=(101, 75)),
    "ogg, VP8": replace(PLAIN, name="clip.ogg", codec="libvpx"),
    "ts": replace(BASE, name="clip.ts", frames=80),
    "ts, 23.976 a second": replace(BASE, name="clip.ts", fps=Fraction(24_000, 1001), frames=90),
    "ts, MPEG-2": replace(BASE, name="clip.ts", codec="mpeg2video"),
    "ts, sound longer than pictures": replace(BASE, name="clip.ts", sound_s=6),
    "avi, H.264 with B-frames": replace(BASE, name="clip.avi"),
    "avi, MPEG-4 with B-frames": replace(BASE, name="clip.avi", codec="mpeg4"),
    "avi, MJPEG": replace(PLAIN, name="clip.avi", codec="mjpeg", pixel_format="yuvj420p"),
    "flv": replace(BASE, name="clip.flv"),
    "mpg, MPEG-2": replace(BASE, name="clip.mpg", codec="mpeg2video"),
    "mpg, MPEG-1": replace(BASE, name="clip.mpg", codec="mpeg1video"),
    "wmv": replace(PLAIN, name="clip.wmv", codec="wmv2", format="asf"),
    "gif": replace(
        PLAIN, name="clip.gif", codec="gif", pixel_format="rgb8", fps=Fraction(10)
    ),
}  # fmt: skip


def numbers(video: SampledVideo) -> list[int]:
    return [read_number(frame.pixels) for frame in video.frames]


def expected(
    recipe: Recipe, count: int, start: float | None = None, end: float | None = None
) -> list[int]:
    a = Fraction(str(start or 0))
    b = recipe.duration_s if end is None else Fraction(str(end))
    return sorted({recipe.number_at(a + k * (b - a) / count) for k in range(count)})


@pytest.mark.parametrize("name", CLIPS)
def test_the_pictures_on_screen_come(name: str, make_clip: MakeClip) -> None:
    recipe = CLIPS[name]
    path = make_clip(recipe)
    clips = [(1, None, None), (8, None, None), (7, None, None), (5, 0.52, 1.4)]
    for count, start, end in [*clips, (min(recipe.frames, 256), None, None)]:
        video = sample_frames(path, Sampling(frames=count), start=start, end=end)
        wanted = expected(recipe, count, start, end)
        assert numbers(video) == wanted
        assert [frame.index for frame in video.frames] == wanted
        assert all(frame.exact for frame in video.frames)
        for frame, number in zip(video.frames, wanted, strict=True):
            # Matroska and FLV round the first picture and this one to a millisecond each.
            assert frame.pts_s == pytest.approx(float(recipe.shown_s[number]), abs=0.0011)


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
