"""Pictures have the shape in which a player shows them, and no header can make them absurd.

The kinds of `tests/kinds/shapes.py` tell the sizes of whole videos; here are those that change midway, and limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from kinds import KINDS, surgery
from support.videos import Recipe, read_number, write_clip

from videoqa.contract import Sampling
from videoqa.errors import FramesTooLarge
from videoqa_worker.frames import CompleteFile, read_header, sample_frames
from videoqa_worker.frames.container.boxes import has_pauses, read_sample_entry
from videoqa_worker.frames.container.elements import read_track_videos
from videoqa_worker.frames.picture.shape import DeclaredShape, ShapeRule
from videoqa_worker.settings import FrameLimits

MakeClip = Callable[[Recipe], Path]
WIDE = Recipe(frames=12, size=(90, 72), pixel_aspect=Fraction(64, 45))


def test_pixels_that_change_midway_are_those_of_each_picture(tmp_path: Path) -> None:
    """The second half begins while the decoder still holds pictures of the first."""
    parts = []
    for half, aspect in enumerate((Fraction(64, 45), Fraction(16, 9))):
        path = tmp_path / f"{half}.ts"
        first_s = Fraction(half * 12, 25) + 1
        recipe = Recipe(
            name=path.name, frames=12, size=(90, 72), first_number=12 * half, first_pts_s=first_s
        )
        write_clip(path, replace(recipe, pixel_aspect=aspect))
        parts.append(path.read_bytes())
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    frames = sample_frames(path, Sampling(frames=24)).frames
    assert [read_number(frame.pixels) for frame in frames] == list(range(24))
    assert [frame.pixels.shape[1] for frame in frames] == [128] * 12 + [160] * 12


@pytest.mark.parametrize("aspect", [Fraction(65535), Fraction(1, 65535), Fraction(0)])
def test_absurd_pixels_are_taken_for_square_ones(aspect: Fraction) -> None:
    rule = ShapeRule(DeclaredShape(), 10**6)
    assert rule.find_size(64, 48, aspect) == (64, 48)
    assert [warning.code for warning in rule.warnings] == ["pixel_aspect_ignored"] * bool(aspect)


@pytest.mark.parametrize("aspect", [Fraction(9, 2), Fraction(2, 9)])
def test_a_stretched_picture_keeps_within_the_limit_and_its_shape(aspect: Fraction) -> None:
    width, height = ShapeRule(DeclaredShape(), 100 * 100).find_size(90, 90, aspect)
    assert 9_000 < width * height <= 10_000
    assert abs(width / height / float(aspect) - 1) < 0.02


def test_memory_is_counted_for_the_pictures_on_screen(make_clip: MakeClip) -> None:
    path = make_clip(WIDE)
    needed_bytes = 128 * 72 * 3 * 4
    sample_frames(path, Sampling(frames=4), limits=FrameLimits(max_frames_bytes=needed_bytes))
    limits = FrameLimits(max_frames_bytes=needed_bytes - 1)
    with pytest.raises(FramesTooLarge):
        sample_frames(path, Sampling(frames=4), limits=limits)


def test_a_preview_is_no_larger_than_its_side(make_clip: MakeClip) -> None:
    (frame,) = sample_frames(make_clip(WIDE), Sampling(frames=1), most_side=64).frames
    assert frame.pixels.shape == (36, 64, 3)


KNOWN_BY_HEADER = (
    "wide pixels, mp4",
    "wide pixels, turned",
    "a size on screen, mkv",
    "clean aperture, wide pixels",
    "clean aperture, turned",
    "cropped, a size on screen, mkv",
    "turned 90",
    "turned 90, mirrored, mkv",
)


def test_a_header_tells_the_size_of_the_frames(tmp_path: Path) -> None:
    """A dry run counts the tokens by it."""
    sampling = Sampling(frames=1)
    for number, name in enumerate(KNOWN_BY_HEADER):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = CompleteFile(KINDS[name].make(folder))
        header = read_header(file, sampling, None, None, FrameLimits(), whole=True)
        (frame,) = sample_frames(file, sampling).frames
        assert (header.width, header.height) == frame.pixels.shape[1::-1], name


def test_square_pixels_cost_no_scaling(make_clip: MakeClip) -> None:
    """The bytes are those of FFmpeg's own conversion at the stored size."""
    path = make_clip(Recipe(frames=2))
    with av.open(str(path)) as source:
        expected = next(source.decode(video=0)).reformat(format="rgb24").to_ndarray()
    (frame,) = sample_frames(path, Sampling(frames=1)).frames
    assert np.array_equal(frame.pixels, expected)


HEADER_BYTES = 150_000
FULL_BOX = bytes(8)
TRACK_HEADER = bytes(12) + b"\0\0\0\1" + bytes(68)


def nest(names: str, body: bytes) -> bytes:
    """Returns boxes within boxes, the outermost first."""
    for name in reversed(names.split()):
        body = surgery.box(name.encode(), body)
    return body


def fill(unit: bytes) -> bytes:
    return unit * (HEADER_BYTES // len(unit))


TRACK = surgery.box(b"tkhd", TRACK_HEADER)
ENTRY = bytes(78)
MP4_HEADERS = {
    "many tracks": nest("moov", fill(nest("trak", b""))),
    "many track headers": nest("moov trak", fill(TRACK)),
    "tracks that reach to the end": nest("moov", fill(b"\x7f\xff\xff\xfftrak")),
    "boxes of all lengths": nest("moov trak", TRACK + fill(b"\0\0\0\0mdia")),
    "many descriptions": nest("moov trak", TRACK + fill(nest("mdia minf stbl stsd", b""))),
    "many boxes of an entry": nest(
        "moov trak",
        TRACK
        + nest("mdia minf stbl stsd", FULL_BOX + nest("avc1", ENTRY + fill(nest("clap", b"")))),
    ),
    "nothing but zeros": fill(b"\0"),
}
TRACKS = b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff\x16\x54\xae\x6b\x10\x02\x49\xf0"
MATROSKA_HEADERS = {
    "many elements": b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff" + fill(b"\xec\x80"),
    "many tracks": TRACKS + fill(b"\xae\x80"),
    "tracks of unknown size": TRACKS + fill(b"\xae\xff\xe0\xff"),
    "one track of many fields": TRACKS + b"\xae\x10\x02\x49\x00" + fill(b"\xd7\x80"),
    "many projections": TRACKS + b"\xae\xff\xe0\xff" + fill(b"\x76\x70\x80"),
    "numbers of great length": TRACKS + b"\xae\xff\xe0\xff\xb0\x10\x02\x40\x00" + fill(b"\xff"),
    "nothing but zeros": fill(b"\0"),
}


@pytest.mark.parametrize(
    "read", [lambda file: read_sample_entry(file, 1), has_pauses, read_track_videos]
)
def test_no_header_takes_long(read: Callable[[CompleteFile], object], tmp_path: Path) -> None:
    path = tmp_path / "header"
    for name, content in (*MP4_HEADERS.items(), *MATROSKA_HEADERS.items()):
        path.write_bytes(content)
        spent_s = []
        for _ in range(5):  # other threads of this process count as well
            begun_s = time.process_time()
            read(CompleteFile(path))
            spent_s.append(time.process_time() - begun_s)
            if spent_s[-1] < 0.05:
                break
        assert min(spent_s) < 0.05, name
