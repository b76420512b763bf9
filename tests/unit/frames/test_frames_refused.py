"""Files that are no videos, that break off, or that are damaged: the right error, never a hang."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from support.videos import Recipe, read_number, write_clip

from videoqa.contract import Sampling
from videoqa.errors import (
    NotAVideo,
    NoVideoStream,
    SamplingError,
    VideoCorrupt,
    VideoTruncated,
)
from videoqa_worker.frames import sample_frames

MakeClip = Callable[[Recipe], Path]

FOUR_SECONDS = Recipe(frames=100)
NOT_VIDEOS = {
    "a web page": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "an HLS playlist": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n",
    "an SDP session": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "a concat list": b"ffconcat version 1.0\nfile /etc/hostname\n",
    "a DASH manifest": b'<?xml version="1.0"?><MPD></MPD>',
    "an XML document": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "JSON": b'{"error": "not found"}',
    "text, expected": b"hello world",
    "a PDF document": b"%PDF-1.7 ...",
    "a JPEG image": b"\xff\xd8\xff\xe0" + bytes(100),
    "an unknown format, expected": b"\xf5\xb1" + random.Random(1).randbytes(5000),
    "an empty file": b"",
}


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    short = path.with_name("cut-" + path.name)
    short.write_bytes(content[: int(len(content) * share)])
    return short


@pytest.mark.parametrize("what", NOT_VIDEOS)
def test_bytes_that_are_no_video_are_named_for_what_they_are(what: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(NOT_VIDEOS[what])
    with pytest.raises(NotAVideo, match=what):
        sample_frames(path, Sampling())


@pytest.mark.parametrize("name", ["data:,x.mp4", "http:clip.mp4", "concat:a.ts|b.ts", "-i.mp4"])
def test_a_files_name_never_becomes_a_protocol(name: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", FOUR_SECONDS)
    path = (tmp_path / "clip.mp4").rename(tmp_path / name)
    assert read_number(sample_frames(path, Sampling(frames=1)).frames[0].pixels) == 0


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_sound_alone_has_no_video_stream(container: str, make_clip: MakeClip) -> None:
    path = make_clip(Recipe(video=False, sound_s=2, format=container))
    with pytest.raises(NoVideoStream, match="1 audio streams and no video"):
        sample_frames(path, Sampling())


def test_a_sound_file_with_a_cover_has_no_video_stream(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(b"ID3\x04" + bytes(400))
    with pytest.raises(NoVideoStream, match="MP3"):
        sample_frames(path, Sampling())


def test_a_sound_file_in_mp4_with_a_cover_has_no_video_stream(make_clip: MakeClip) -> None:
    sound = make_clip(Recipe(name="song.m4a", video=False, sound_s=2, format="mp4")).read_bytes()
    cover = make_clip(
        Recipe(name="cover.avi", codec="png", pixel_format="rgb24", frames=1, b_frames=0)
    ).read_bytes()
    png = cover[cover.index(b"\x89PNG") : cover.index(b"IEND") + 8]
    path = make_clip(Recipe(name="both.m4a", video=False, sound_s=2, format="mp4"))
    path.write_bytes(with_cover(sound, png))
    with pytest.raises(NoVideoStream, match="1 cover pictures"):
        sample_frames(path, Sampling())


def with_cover(mp4: bytes, png: bytes) -> bytes:
    """Puts an iTunes cover into the moov box, which stands last."""

    def box(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body) + 8) + name + body

    at = mp4.index(b"moov") - 4
    data = box(b"data", struct.pack(">II", 14, 0) + png)
    handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    meta = box(b"meta", bytes(4) + handler + box(b"ilst", box(b"covr", data)))
    return mp4[:at] + box(b"moov", mp4[at + 8 :] + box(b"udta", meta))


def test_an_mp4_that_ends_before_its_index_says_so(make_clip: MakeClip) -> None:
    for share in (0.9, 0.5, 0.02):
        with pytest.raises(VideoTruncated, match=r"ends before its index \(moov\)"):
            sample_frames(cut(make_clip(FOUR_SECONDS), share), Sampling())


@pytest.mark.parametrize(
    "recipe",
    [
        replace(FOUR_SECONDS, options={"movflags": "faststart"}),
        replace(FOUR_SECONDS, name="clip.mkv"),
        replace(FOUR_SECONDS, name="clip.mkv", sound_s=4),
        replace(FOUR_SECONDS, name="clip.webm", codec="libvpx", b_frames=0),
        replace(FOUR_SECONDS, name="clip.flv"),
    ],
    ids=lambda recipe: recipe.name + recipe.options.get("movflags", ""),
)
def test_a_video_that_breaks_off_is_never_padded_with_its_last_picture(
    recipe: Recipe, make_clip: MakeClip
) -> None:
    short = cut(make_clip(recipe), 0.6)
    with pytest.raises(VideoTruncated, match=r"pictures end at .* of 4\.") as caught:
        sample_frames(short, Sampling())
    usable_s = float(str(caught.value).rpartition("end=")[2].split()[0])
    assert 0.5 < usable_s < 3.5
    video = sample_frames(short, Sampling(), end=usable_s)
    for frame in video.frames:
        assert frame.exact
        assert read_number(frame.pixels) == frame.index
    assert [frame.index for frame in video.frames] == [
        int(k * round(usable_s * 100) / 8 / 4 + 1e-9) for k in range(8)
    ]


@pytest.mark.parametrize("name", ["clip.ts", "clip.mpg"])
def test_where_no_length_is_promised_the_pictures_that_came_are_the_video(
    name: str, make_clip: MakeClip
) -> None:
    codec = "mpeg2video" if name.endswith("mpg") else "libx264"
    video = sample_frames(
        cut(make_clip(replace(FOUR_SECONDS, name=name, codec=codec)), 0.5), Sampling()
    )
    for frame in video.frames:
        assert read_number(frame.pixels) == frame.index


def test_a_fragmented_mp4_that_breaks_off_gives_its_whole_fragments(make_clip: MakeClip) -> None:
    path, cut_at = _fragmented(make_clip, b"mdat")
    for at in cut_at:
        path.write_bytes(path.read_bytes()[:at])
        video = sample_frames(path, Sampling(), end=0.9)
        assert [read_number(frame.pixels) for frame in video.frames] == [0, 2, 5, 8, 11, 14, 16, 19]


def test_a_fragmented_mp4_that_breaks_off_in_a_fragments_header_gives_those_before(
    make_clip: MakeClip,
) -> None:
    """At any byte of it: FFmpeg by itself refuses some, and all that is before with them."""
    path, cut_at = _fragmented(make_clip, b"moof")
    content, header = path.read_bytes(), cut_at[0] - 44
    size = int.from_bytes(content[header : header + 4], "big")
    for at in range(header + 8, header + size, 5):
        path.write_bytes(content[:at])
        video = sample_frames(path, Sampling(), end=0.9)
        assert [read_number(frame.pixels) for frame in video.frames] == [0, 2, 5, 8, 11, 14, 16, 19]
        assert all(frame.exact for frame in video.frames)


def _fragmented(make_clip: MakeClip, box: bytes) -> tuple[Path, list[int]]:
    """A clip, and places within its later boxes of a kind, the last first."""
    path = make_clip(replace(FOUR_SECONDS, options={"movflags": "frag_keyframe+empty_moov"}))
    content = path.read_bytes()
    found = [n for n in range(len(content)) if content.startswith(box, n)]
    return path, [at + 40 for at in reversed(found[len(found) // 2 : -1])]


def test_pictures_lost_to_damage_are_not_called_exact(make_clip: MakeClip) -> None:
    path = make_clip(replace(FOUR_SECONDS, options={"movflags": "faststart"}, gop=100))
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) * 3 // 4
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    video = sample_frames(path, Sampling(frames=100))
    assert any(not frame.exact for frame in video.frames)
    for frame in video.frames:
        if frame.exact:
            assert read_number(frame.pixels) == frame.index


def test_a_video_of_which_nothing_decodes_is_corrupt(make_clip: MakeClip) -> None:
    path = make_clip(replace(FOUR_SECONDS, options={"movflags": "faststart"}))
    content = path.read_bytes()
    pictures = content.index(b"mdat") + 4
    path.write_bytes(content[:pictures] + b"\xff" * (len(content) - pictures))
    with pytest.raises(VideoCorrupt, match="no picture decodes"):
        sample_frames(path, Sampling())


@pytest.mark.parametrize(
    "recipe",
    [
        replace(FOUR_SECONDS, frames=20, name=name, **extra)
        for name, extra in (
            ("clip.mp4", {"options": {"movflags": "faststart"}}),
            ("clip.mkv", {}),
            ("clip.ts", {}),
            ("clip.avi", {}),
            ("clip.webm", {"codec": "libvpx", "b_frames": 0}),
        )
    ],
    ids=lambda recipe: recipe.name,
)
def test_random_damage_ends_in_frames_or_in_one_of_our_errors(
    recipe: Recipe, make_clip: MakeClip, tmp_path: Path
) -> None:
    content = make_clip(recipe).read_bytes()
    chance = random.Random(recipe.name)
    for round_ in range(40):
        damaged = bytearray(content[: chance.randrange(40, len(content) + 1)])
        for _ in range(chance.randrange(1, 30)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path = tmp_path / f"damaged{round_}"
        path.write_bytes(damaged)
        with suppress(SamplingError):
            assert sample_frames(path, Sampling(frames=4)).frames
