"""Files that are no videos, that break off, or that are damaged: the right error, never a hang."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from support.videos import Recipe, read_number, write_clip

from videoqa.contract import Sampling
from videoqa.errors import (
    NotAVideo,
    NoVideoStream,
    SamplingError,
    VideoCorrupt,
    VideoEncrypted,
    VideoTruncated,
)
from videoqa_worker.frames import sample_frames
from videoqa_worker.settings import FrameLimits

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


def scramble(content: bytes) -> bytes:
    """Marks all packets of a transport stream but its tables as scrambled."""
    packets = [bytearray(content[at : at + 188]) for at in range(0, len(content), 188)]
    for packet in packets:
        packet[3] |= 0x80 if int.from_bytes(packet[1:3], "big") & 0x1FFF == 0x100 else 0
    return b"".join(packets)


ENCRYPTIONS: dict[str, Callable[[bytes], bytes]] = {
    "clip.mp4": lambda content: content.replace(b"avc1\0\0\0\0", b"encv\0\0\0\0"),
    # Two elements of the track become ContentEncodings with a ContentEncryption.
    "clip.mkv": lambda content: content.replace(
        b"\x9c\x81\x00\x22\xb5\x9c\x83und", b"\x6d\x80\x87\x62\x40\x84\x50\x35\x81\0"
    ),
    "clip.ts": scramble,
}


@pytest.mark.parametrize("name", ENCRYPTIONS)
def test_encrypted_pictures_are_called_so(name: str, make_clip: MakeClip) -> None:
    path = make_clip(replace(FOUR_SECONDS, name=name))
    clear, protected = path.read_bytes(), ENCRYPTIONS[name](path.read_bytes())
    assert protected != clear
    path.write_bytes(protected)
    with pytest.raises(VideoEncrypted, match=r"encrypted.*decrypted copy") as caught:
        sample_frames(path, Sampling())
    assert (caught.value.code, caught.value.retryable) == ("video_encrypted", False)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"SMK2" + bytes(200), "a Smacker video, a format \\(smk\\) .* VIDEOQA_FORMATS"),
        (b"MLVI" + bytes(200), "Magic Lantern"),
        (b"#EXTM3U\n", "HLS playlist.*joins its parts"),
        (b"<MPD></MPD>", "DASH manifest.*joins its parts"),
        (
            b'<html><meta property="og:video" content="x">',
            "shows a video, not the video itself, .*; send",
        ),
        (b"PK\3\4" + bytes(50), "ZIP archive, expected a video; unpack"),
    ],
)
def test_the_refusal_has_the_next_step(content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(NotAVideo, match=text):
        sample_frames(path, Sampling())


def test_the_refusal_of_a_format_that_is_not_allowed_names_the_setting(make_clip: MakeClip) -> None:
    path = make_clip(replace(FOUR_SECONDS, name="clip.mxf", codec="mpeg2video"))
    with pytest.raises(NotAVideo, match=r"an MXF video, .*\(mxf\).*VIDEOQA_FORMATS"):
        sample_frames(path, Sampling(), limits=FrameLimits(formats="mov,matroska"))


ARCHIVES = {
    "a ZIP archive": b"PK\3\4" + bytes(60),
    "a tar archive": b"clip.ts".ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0"),
    "a PDF document": b"%PDF-1.7\n",
    "a Photoshop document": b"8BPS\0\1" + bytes(60),
}


@pytest.mark.parametrize("what", ARCHIVES)
@pytest.mark.parametrize("inner", ["clip.ts", "clip.h264"])
def test_a_video_within_another_file_is_not_taken_for_it(
    what: str, inner: str, make_clip: MakeClip
) -> None:
    path = make_clip(Recipe(name=inner, frames=10))
    path.write_bytes(ARCHIVES[what] + path.read_bytes())
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
        replace(FOUR_SECONDS, name=name, **{"frames": 20, **extra})
        for name, extra in (
            ("clip.mp4", {"options": {"movflags": "faststart"}}),
            ("clip.mkv", {}),
            ("clip.ts", {}),
            ("clip.avi", {}),
            ("clip.webm", {"codec": "libvpx", "b_frames": 0}),
            ("clip.mxf", {"codec": "mpeg2video"}),
            ("clip.dv", {"codec": "dvvideo", "size": (720, 576), "frames": 2, "b_frames": 0}),
            ("clip.ivf", {"codec": "libvpx", "b_frames": 0}),
            ("clip.obu", {"codec": "libsvtav1", "b_frames": 0}),
            ("clip.wtv", {"codec": "mpeg2video"}),
            ("clip.rm", {"codec": "rv20", "size": (96, 80), "b_frames": 0}),
            ("clip.nut", {}),
            ("clip.y4m", {"codec": "rawvideo", "b_frames": 0}),
            ("clip.m4v", {"codec": "mpeg4", "format": "m4v"}),
            ("clip.mjpeg", {"codec": "mjpeg", "pixel_format": "yuvj420p", "b_frames": 0}),
            ("clip.png", {"codec": "apng", "pixel_format": "rgb24", "format": "apng", "b_frames": 0}),
            ("clip.roq", {
                "codec": "roqvideo", "pixel_format": "yuvj444p", "size": (64, 64), "fps": Fraction(30), "b_frames": 0,
            }),
            ("clip.cpk", {
                "codec": "cinepak", "pixel_format": "rgb24", "format": "film_cpk", "frames": 4, "b_frames": 0,
            }),
            ("clip.mjpg", {"codec": "mjpeg", "pixel_format": "yuvj420p", "format": "smjpeg", "b_frames": 0}),
            ("clip.swf", {"codec": "flv", "b_frames": 0}),
        )
    ],
    ids=lambda recipe: recipe.name,
)  # fmt: skip
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
