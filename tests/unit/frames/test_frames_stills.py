"""Still pictures are images whichever way they come in, in this process and in a confined one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from kinds.accuracy import Row, Table
from kinds.heif_writer import Property, write_heif
from kinds.stills import NUMBER, REFUSED_STILLS, SIZE, STILLS
from PIL import Image, ImageOps
from support.decoding import assert_same, outcome
from support.videos import draw_number, read_number

from videoqa.contract import Sampling
from videoqa.errors import SamplingError
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.frames import CompleteFile, read_image, sample_frames, sample_segments
from videoqa_worker.frames.decode.heif_decoder import decode_heif
from videoqa_worker.settings import FrameLimits


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(FrameLimits(), processes=1) as pool:
        yield pool


@pytest.mark.parametrize("name", STILLS)
def test_a_still_is_an_image_also_as_a_video(
    name: str, tmp_path: Path, accuracy_table: Table, decoders: Decoders
) -> None:
    still = STILLS[name]
    path = still.make(tmp_path)
    image = read_image(path)
    assert image.info.is_image
    assert (image.info.width, image.info.height) == still.size
    assert read_number(image.frames[0].pixels) == NUMBER
    assert tuple(warning.code for warning in image.warnings) == still.warns
    file = CompleteFile(path)
    assert_same(sample_frames(path, Sampling(frames=4)), image)
    assert_same(outcome(lambda: decoders.read_image(file)), image)
    assert_same(outcome(lambda: decoders.sample(file, Sampling(frames=4))), image)
    accuracy_table.add(Row(name, right=3, asked=3, exact=3, indexed=3))


@pytest.mark.parametrize("name", REFUSED_STILLS)
def test_a_still_that_cannot_be_read_is_named(
    name: str, tmp_path: Path, accuracy_table: Table
) -> None:
    write, code, text = REFUSED_STILLS[name]
    path = tmp_path / "picture"
    path.write_bytes(write())
    for call in (lambda: read_image(path), lambda: sample_frames(path, Sampling())):
        with pytest.raises(SamplingError, match=text) as caught:
            call()
        assert caught.value.code == code
    accuracy_table.add(Row(name, refused=code))


@pytest.mark.parametrize("name", [name for name in STILLS if name.startswith("AVIF")])
def test_our_reader_of_heif_agrees_with_libavif(name: str, tmp_path: Path) -> None:
    """Both read the same AVIF files, and only ours reads HEIC."""
    path = STILLS[name].make(tmp_path)
    ours = np.asarray(decode_heif(CompleteFile(path), FrameLimits()).image)
    with Image.open(path) as image:
        theirs = np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=int)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 3


def test_alpha_of_a_heif_picture_is_its_own(tmp_path: Path) -> None:
    pixels = draw_number(NUMBER, *SIZE)
    ramp = np.tile(np.linspace(0, 255, SIZE[0]).astype(np.uint8), (SIZE[1], 1))
    path = tmp_path / "picture"
    path.write_bytes(write_heif(pixels, alpha=ramp))
    image = decode_heif(CompleteFile(path), FrameLimits()).image
    assert image.mode == "RGBA"
    found = np.asarray(image)[:, :, 3].astype(int)
    assert np.abs(found - ramp).mean() < 3


def test_a_cropped_avif_image_is_cropped(tmp_path: Path) -> None:
    """libavif passes the clean aperture on, and Pillow drops it."""
    content = STILLS["AVIF"].write()
    at = content.index(b"pixi") - 4
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", 48, 1, 36, 1, 0, 1, 0, 1)
    assert content[at : at + 4] == b"\0\0\0\x10"
    # The description of channels is not needed, so the crop takes its place, and all sizes grow by 24.
    moved = content[:at] + clap + content[at + 16 :]
    for name in (b"meta", b"iprp", b"ipco"):
        size_at = moved.index(name) - 4
        size = int.from_bytes(moved[size_at : size_at + 4], "big") + 24
        moved = moved[:size_at] + size.to_bytes(4, "big") + moved[size_at + 4 :]
    offset_at = moved.index(b"iloc") + 18
    before = int.from_bytes(moved[offset_at : offset_at + 4], "big")
    assert content[before : before + 2] in (b"\x12\0", b"\x0a\x0a", b"\x0a\x06")
    moved = moved[:offset_at] + (before + 24).to_bytes(4, "big") + moved[offset_at + 4 :]
    path = tmp_path / "picture"
    path.write_bytes(moved)
    found = read_image(path)
    assert (found.info.width, found.info.height, found.info.format) == (48, 36, "avif")


@pytest.mark.parametrize(("transfer", "name"), [(16, "pq"), (18, "hlg")])
def test_hdr_stills_are_mapped_to_sdr(transfer: int, name: str, tmp_path: Path) -> None:
    tags = Property.colours(9, transfer, 9, full=False)
    path = tmp_path / "picture"
    # Reference white (203 nits) has 58 % of PQ's signal, and 75 % of HLG's.
    grey = round(255 * (0.58 if transfer == 16 else 0.75))
    flat = np.full((*SIZE[::-1], 3), grey, dtype=np.uint8)
    path.write_bytes(write_heif(flat, tags, pixel_format="yuv420p10le"))
    found = read_image(path)
    assert (found.info.dynamic_range, found.info.tone_mapped, found.warnings) == (name, True, ())
    assert found.frames[0].pixels.mean() > 235
    off = read_image(path, limits=FrameLimits(hdr="off"))
    assert [warning.code for warning in off.warnings] == ["hdr_not_mapped"]
    assert abs(off.frames[0].pixels.mean() - grey) < 8


def test_a_still_is_one_segment(tmp_path: Path) -> None:
    path = STILLS["PNG"].make(tmp_path)
    (segment,) = sample_segments(path, Sampling(method="segment", segment_s=5.0))
    assert (segment.number, segment.total) == (0, 1)
    assert read_number(segment.video.frames[0].pixels) == NUMBER


def test_a_clip_of_a_still_says_that_it_has_no_effect(tmp_path: Path) -> None:
    video = sample_frames(STILLS["PNG"].make(tmp_path), Sampling(), start=2, end=4)
    assert [warning.code for warning in video.warnings] == ["one_picture"]
