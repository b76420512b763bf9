"""A malformed box that showing pictures does not need costs no frame of an MP4.

FFmpeg refuses a whole file for one of them. The bodies are tried on every box that its demuxer is known
to refuse, wherever such a box may stand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError
from kinds.surgery import box, with_child
from support.sparse_files import make_empty_copy
from support.videos import Recipe, read_number, write_clip

from videoqa.contract import Sampling
from videoqa.errors import VideoCorrupt, VideoEncrypted, VideoQAError
from videoqa_worker.frames import SampledVideo, sample_frames
from videoqa_worker.frames.sparse_file import CompleteFile, SparseFile

MOVIE = (b"moov",)
TRACK = (b"moov", b"trak")
TABLES = (*TRACK, b"mdia", b"minf", b"stbl")
ENTRY = (*TABLES, b"stsd", b"avc1")
PLACES = {
    (): (b"uuid", b"sidx", b"emsg"),
    MOVIE: (b"uuid", b"pssh", b"meta"),
    (*MOVIE, b"udta"): (b"loci", b"kind", b"\xa9nam", b"meta", b"titl"),
    TRACK: (b"uuid", b"udta", b"meta", b"tref"),
    TABLES: (b"sgpd", b"sbgp", b"sdtp", b"cslg", b"saiz", b"saio", b"uuid"),
    ENTRY: (
        b"mdcv", b"clli", b"SmDm", b"CoLL", b"st3d", b"sv3d", b"SA3D", b"dvcC", b"dvvC", b"fiel", b"amve", b"btrt",
        b"colr", b"pasp", b"vexu", b"chan", b"wave", b"lhvC", b"vpcC", b"av1C", b"uuid",
    ),
}  # fmt: skip
BODIES = {
    "empty": b"",
    "one byte": b"\1",
    "of another version": b"\xff" * 8,
    "too many": bytes(4) + b"\x7f\xff\xff\xff" + bytes(32),
}
SHAPING = {b"mdcv", b"clli", b"SmDm", b"CoLL", b"fiel", b"amve", b"colr", b"vpcC", b"av1C"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("plain") / "clip.mp4"
    write_clip(path, Recipe(name=path.name, frames=3, gop=3, b_frames=0, sound_s=0.2))
    return with_child(path.read_bytes(), MOVIE, box(b"udta", b""))


def sample(file: SparseFile | Path) -> SampledVideo:
    video = sample_frames(file, Sampling(frames=3))
    assert [read_number(frame.pixels) for frame in video.frames] == [0, 1, 2]
    return video


def is_refused(path: Path) -> bool:
    """Returns True if FFmpeg alone refuses the file."""
    try:
        with av.open(str(path), metadata_errors="replace"):
            return False
    except FFmpegError:
        return True


def list_files(plain: bytes) -> Iterator[tuple[bytes, str, bytes]]:
    for place, names in PLACES.items():
        for name in names:
            for what, body in BODIES.items():
                where = "/".join(part.decode() for part in place)
                content = with_child(plain, place, box(name, body)) if place else plain
                yield (
                    name,
                    f"{where} {name!r} {what}",
                    content if place else plain + box(name, body),
                )


def test_no_malformed_box_that_is_optional_costs_a_frame(plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    mistakes, refused = [], set()
    for name, what, content in list_files(plain):
        path.write_bytes(content)
        try:
            video = sample(path)
        except (VideoQAError, AssertionError) as error:
            mistakes.append(f"{what}: {error}")
            continue
        codes = {warning.code for warning in video.warnings} - {"pixel_aspect_ignored"}
        if is_refused(path):
            refused.add(name)
        if codes != ({"boxes_ignored"} if name in SHAPING and is_refused(path) else set()):
            mistakes.append(f"{what}: {codes}")
    assert not mistakes, "\n".join(mistakes)
    assert len(refused) >= 15, refused


def with_dead_header(content: bytes, at: int) -> bytes:
    """Makes a track's media header one of no valid version, which FFmpeg refuses."""
    return content[: at + 4] + b"\xff" + content[at + 5 :]


def test_a_malformed_track_of_sound_costs_no_frame(plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(with_dead_header(plain, plain.rindex(b"mdhd")))
    assert is_refused(path)
    assert not sample(path).warnings


def test_a_box_of_shape_is_named_where_all_are_left_out(plain: bytes, tmp_path: Path) -> None:
    """One that is malformed costs those beside it, except for what videoqa reads by itself."""
    path = tmp_path / "clip.mp4"
    aspect = with_child(plain, ENTRY, box(b"pasp", struct.pack(">II", 4, 3)))
    path.write_bytes(with_child(aspect, ENTRY, box(b"mdcv", b"")))
    (warning,) = sample(path).warnings
    assert warning.code == "boxes_ignored"
    assert "mdcv, pasp" in warning.message


FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


def test_fragments_with_malformed_boxes_give_their_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    recipe = Recipe(name=path.name, frames=6, gop=3, b_frames=0, options=FRAGMENTS)
    write_clip(path, recipe)
    content = path.read_bytes()
    at = content.index(b"moof") - 4
    path.write_bytes(content[:at] + box(b"uuid", b"") + content[at:])
    assert is_refused(path)
    video = sample_frames(path, Sampling(frames=6))
    assert [read_number(frame.pixels) for frame in video.frames] == list(range(6))


def test_a_remote_file_is_read_in_parts_all_the_same(plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(with_child(plain, (*MOVIE, b"udta"), box(b"loci", b"")))
    assert is_refused(path)
    here = sample(path)
    there = sample(make_empty_copy(path, tmp_path))
    for ours, theirs in zip(here.frames, there.frames, strict=True):
        assert np.array_equal(ours.pixels, theirs.pixels)


def test_an_encrypted_file_is_told_as_encrypted(plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(with_child(plain.replace(b"avc1", b"encv"), MOVIE, box(b"pssh", b"")))
    assert is_refused(path)
    with pytest.raises(VideoEncrypted):
        sample(path)


def test_what_is_needed_stays_needed(plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(with_dead_header(plain, plain.index(b"mdhd")))
    with pytest.raises(VideoCorrupt):
        sample_frames(CompleteFile(path), Sampling(frames=3))
