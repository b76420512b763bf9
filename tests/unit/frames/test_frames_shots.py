"""Segments that follow the film's cuts: found by keyframes, limited in length, said to be uncertain elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from pydantic import ValidationError

from videoqa.contract import Sampling
from videoqa.errors import DecodeTimeout, TooManySegments
from videoqa_worker.frames import sample_segments
from videoqa_worker.frames.selection.clip import Clip
from videoqa_worker.frames.shots import finder
from videoqa_worker.frames.shots.finder import limit_lengths
from videoqa_worker.settings import DEFAULT_LIMITS

FPS = 25
CUTS_S = (2.2, 3.6, 6.0)
END_S = 8.0
SHOTS = Sampling(method="segment", segment="shots", frames=2)
BY_KEYFRAMES = {"preset": "ultrafast", "x264-params": "scenecut=40:keyint=250"}
FIXED = {"preset": "ultrafast", "x264-params": "scenecut=0:keyint=40:min-keyint=40"}


def draw_film() -> Iterator[np.ndarray]:
    """Yields pictures of four shots: a fine pattern in a colour of its own each, and a square that moves."""
    random = np.random.default_rng(7)
    bounds = [round(at_s * FPS) for at_s in (0.0, *CUTS_S, END_S)]
    for n, (start, end) in enumerate(pairwise(bounds)):
        back = random.integers(0, 90, (90, 160, 3), dtype=np.uint8)
        back[..., n % 3] += np.uint8(120)
        for k in range(end - start):
            picture = back.copy()
            picture[40:60, k : k + 20] = 255
            yield picture


def write_film(path: Path, options: dict[str, str], codec: str = "libx264") -> Path:
    with av.open(str(path), "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=FPS, options=options))
        stream.width, stream.height = 160, 90
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for pixels in draw_film():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", BY_KEYFRAMES)


def test_segments_end_at_the_cuts_and_show_one_shot_each(film: Path) -> None:
    segments = list(sample_segments(film, SHOTS))
    assert [one.start_s for one in segments] == pytest.approx([0.0, *CUTS_S], abs=1e-6)
    assert segments[-1].end_s == pytest.approx(END_S)
    assert not [warn for one in segments for warn in one.video.warnings]
    for n, one in enumerate(segments):
        assert all(frame.pixels.mean((0, 1)).argmax() == n % 3 for frame in one.video.frames)


def test_a_part_of_the_film_and_a_resumed_job_have_the_same_cuts(film: Path) -> None:
    part = list(sample_segments(film, SHOTS, start=1.0, end=5.0))
    assert [one.start_s for one in part] == pytest.approx([1.0, *CUTS_S[:2]], abs=1e-6)
    resumed = list(sample_segments(film, SHOTS, start=1.0, end=5.0, first=2))
    assert [(one.number, one.start_s) for one in resumed] == [(2, part[2].start_s)]


@pytest.mark.parametrize(
    ("name", "codec", "options", "is_found"),
    [
        ("fixed.mp4", "libx264", FIXED, True),
        ("film.mkv", "libx264", BY_KEYFRAMES, True),
        ("all.mov", "mjpeg", {}, True),
        ("one.mp4", "libx264", {"x264-params": "scenecut=0:keyint=9999"}, False),
        ("film.avi", "mpeg4", {}, False),
    ],
)
def test_what_keyframes_do_not_tell_is_said(
    name: str, codec: str, options: dict[str, str], is_found: bool, tmp_path: Path
) -> None:
    path = write_film(tmp_path / name, options, codec)
    segments = list(sample_segments(path, SHOTS))
    starts = [one.start_s for one in segments]
    if is_found:
        assert starts == pytest.approx([0.0, *CUTS_S], abs=0.5)
    else:
        assert starts == [0.0]
    codes = [warn.code for warn in segments[-1].video.warnings]
    assert ("shots_uncertain" in codes) == (name not in ("film.mkv", "all.mov"))


def test_lengths_are_limited() -> None:
    clip = Clip(Fraction(0), Fraction(100))
    cuts = [Fraction(cut) for cut in (10, 11, 13, 99)]
    spans = limit_lengths(cuts, clip, Fraction(2), Fraction(30))
    bounds = [(float(start_s), float(end_s)) for start_s, end_s in spans]
    assert bounds == [(0, 10), (10, 13), (13, 42), (42, 71), (71, 100)]


def test_the_search_keeps_the_limits_of_decoding(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[None] = []
    monkeypatch.setattr(finder, "KEYFRAMES_A_STEP", 2)
    list(sample_segments(film, SHOTS, on_skipped=lambda: steps.append(None)))
    assert len(steps) == 2  # four keyframes
    with pytest.raises(TooManySegments, match="4 shots"):
        list(
            sample_segments(
                film, SHOTS, limits=DEFAULT_LIMITS.model_copy(update={"max_segments": 3})
            )
        )
    short = DEFAULT_LIMITS.model_copy(update={"decode_timeout_s": 1e-9})
    with pytest.raises(DecodeTimeout):
        list(sample_segments(film, SHOTS, limits=short))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "without segment_s"),
        ({"segment_s": 5, "min_segment_s": 1}, "without segment='shots'"),
        ({"segment": "shots", "overlap_s": 1}, "got overlap_s"),
        ({"segment": "shots", "segment_s": 2, "min_segment_s": 3}, "at most segment_s=2"),
        ({"segment": "scenes"}, "shots"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(
    fields: dict[str, object], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        Sampling.model_validate({"method": "segment", **fields})
