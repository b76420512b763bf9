"""Writers of clips that need more than one encoder or muxer call."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from shutil import copyfile

import av
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image
from support.videos import Recipe, _add_video, _clock, _stored, draw_number, write_clip

from kinds import surgery

__all__ = [
    "RESIZED",
    "write_animation",
    "write_by_decoding_time",
    "write_continued",
    "write_damaged_alpha",
    "write_joined",
    "write_joined_late",
    "write_packed_avi",
    "write_resized",
    "write_stored",
    "write_theora",
    "write_twice_timed",
    "write_two_streams",
    "write_with_cover",
    "write_with_units",
]

_OTHER = 2000
"""First number of the pictures that no reader may return."""


def write_animation(path: Path, recipe: Recipe) -> None:
    """Writes an animated picture by Pillow; the last picture lasts as long as at the recipe's rate."""
    pictures = [Image.fromarray(draw_number(n, *recipe.size)) for n in range(recipe.frames)]
    times_s = [*recipe.shown_s, recipe.duration_s]
    lasts_ms = [round(1000 * (after - before)) for before, after in pairwise(times_s)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=lasts_ms)


def write_two_streams(path: Path, recipe: Recipe) -> None:
    """Writes a small stream first, then a larger one, which FFmpeg and players choose."""
    small = replace(recipe, size=(48, 36))
    with av.open(str(path), "w", format=recipe.format, options=recipe.options) as out:
        first, second = _add_video(out, small), _add_video(out, recipe)
        second.disposition = Disposition.default
        clock = _clock(recipe)
        for number in range(recipe.frames):
            for stream, shown, size in (
                (first, _OTHER + number, small.size),
                (second, number, recipe.size),
            ):
                picture = av.VideoFrame.from_ndarray(draw_number(shown, *size), format="rgb24")
                picture = picture.reformat(format=recipe.pixel_format)
                picture.pts, picture.time_base = round(number / recipe.fps / clock), clock
                out.mux(stream.encode(picture))
        out.mux(first.encode(None))
        out.mux(second.encode(None))


def write_with_cover(path: Path, recipe: Recipe) -> None:
    write_clip(path, recipe)
    png = BytesIO()
    Image.fromarray(draw_number(_OTHER, 96, 72)).save(png, "PNG")
    path.write_bytes(surgery.with_cover(path.read_bytes(), png.getvalue()))


def write_joined(path: Path, recipe: Recipe) -> None:
    """Writes a file twice, end to end."""
    write_clip(path, recipe)
    path.write_bytes(path.read_bytes() * 2)


def write_continued(path: Path, recipe: Recipe) -> None:
    """Writes two files end to end; the second shows the later half of the pictures 8 s later."""
    half = recipe.frames // 2
    first = replace(recipe, frames=half, first_pts_s=Fraction(1))
    write_clip(path, first)
    late = replace(first, first_number=half, first_pts_s=1 + half / recipe.fps + 8)
    rest = path.with_name(f"rest-{path.name}")
    write_clip(rest, late)
    path.write_bytes(path.read_bytes() + rest.read_bytes())


RESIZED = ((96, 72), (144, 108))
"""The sizes of the pictures that `write_resized` writes."""


def write_resized(path: Path, recipe: Recipe) -> None:
    """Writes a clip whose second half is one and a half times as large, from another encoder."""
    half = recipe.frames // 2
    with av.open(str(path), "w", format=recipe.format, options=recipe.options) as out:
        stream = _add_video(out, recipe)
        later = replace(recipe, size=(recipe.size[0] * 3 // 2, recipe.size[1] * 3 // 2))
        clock = _clock(recipe)
        for part, numbers in ((recipe, range(half)), (later, range(half, recipe.frames))):
            with av.open(BytesIO(), "w", format="mpegts") as scratch:
                encoder = _add_video(scratch, part).codec_context
                for number in [*numbers, None]:
                    picture = None
                    if number is not None:
                        pixels = _stored(part, number)
                        picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                        picture = picture.reformat(format=part.pixel_format)
                        picture.pts, picture.time_base = number, clock
                    for packet in encoder.encode(picture):
                        packet.stream = stream
                        out.mux(packet)


def write_theora(path: Path, recipe: Recipe) -> None:
    """Copies a stored file, made by `ffmpeg -i plain.mp4 -c:v libtheora -g 12 -q:v 2`.

    PyAV's FFmpeg has no Theora encoder.
    """
    assert recipe.frames == 30
    copyfile(Path(__file__).with_name("theora.ogv"), path)


def write_stored(path: Path, recipe: Recipe) -> None:
    """Copies a stored file of the recipe's name: VP9 of 10 and 12 bits, which PyAV's encoder does not have.

    They were made of `support.hdr.make_picture` by `ffmpeg -f rawvideo ... -c:v libvpx-vp9 -g 12 -crf 40`.
    """
    copyfile(Path(__file__).with_name(recipe.name), path)


def write_damaged_alpha(path: Path, recipe: Recipe) -> None:
    """Writes a clip with an alpha layer, of which no packet can be decoded."""

    def damaged(coded: list[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
        for packet in coded:
            addition = packet.get_sidedata("matroska_block_additional")
            addition.update(bytes(addition)[:8].ljust(addition.buffer_size, b"\0"))
            packet.set_sidedata(addition)
        return coded

    _rewrite(path, recipe, damaged)


def write_twice_timed(path: Path, recipe: Recipe) -> None:
    """Writes a clip whose pictures 20 and 21 have the same time."""

    def twice(coded: list[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
        coded[20].pts, coded[20].dts = coded[21].pts, coded[21].dts
        return coded

    _rewrite(path, recipe, twice)


def write_joined_late(path: Path, recipe: Recipe, *, after: int) -> None:
    """Writes a clip without its first packets, like a recorder that joins a broadcast."""

    def late(coded: list[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
        return coded[after:]

    _rewrite(path, recipe, late)


def write_with_units(path: Path, recipe: Recipe, *, unit: bytes, all_packets: bool = False) -> None:
    """Writes a clip with this NAL unit before each keyframe, or each picture."""
    size = None if path.suffix == ".ts" else 4
    start = b"\0\0\0\1" if size is None else len(unit).to_bytes(size, "big")

    def longer(coded: list[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
        return [_with(start + unit, p) if p.is_keyframe or all_packets else p for p in coded]

    _rewrite(path, recipe, longer)


def _with(prefix: bytes, old: Packet[VideoStream]) -> Packet[VideoStream]:
    packet: Packet[VideoStream] = Packet(prefix + bytes(old))
    packet.pts, packet.dts, packet.time_base = old.pts, old.dts, old.time_base
    packet.is_keyframe = old.is_keyframe
    return packet


def _rewrite(
    path: Path,
    recipe: Recipe,
    change: Callable[[list[Packet[VideoStream]]], list[Packet[VideoStream]]],
) -> None:
    plain = path.with_name(f"plain-{path.name}")
    write_clip(plain, recipe)
    with av.open(str(plain)) as source, av.open(str(path), "w", format=recipe.format) as out:
        stream = source.streams.video[0]
        to = out.add_stream_from_template(stream)
        for packet in change([packet for packet in source.demux(stream) if packet.size]):
            packet.stream = to
            out.mux(packet)


def write_by_decoding_time(path: Path, recipe: Recipe) -> None:
    """Writes a clip whose pts equal the dts, as old recorders and tools do."""

    def by_decoding(coded: list[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
        for number, packet in enumerate(coded):
            packet.pts = packet.dts = round(number / recipe.fps / packet.time_base)
        return coded

    _rewrite(path, recipe, by_decoding)


def write_packed_avi(path: Path, recipe: Recipe) -> None:
    """Writes packed B-frames as DivX 5 did: a P and the B before it in a chunk, then a placeholder.

    The user data says so by its last letter, and the placeholder is a P-VOP with vop_coded = 0
    (ISO/IEC 14496-2, 6.2.5).
    """
    plain = path.with_name(f"plain-{path.name}")
    write_clip(plain, recipe)
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        stream = source.streams.video[0]
        to = out.add_stream_from_template(stream)
        coded = [packet for packet in source.demux(stream) if packet.size]
        bodies = [_LAVC.sub(_DIVX, bytes(packet)) for packet in coded]
        for n, (first, second) in enumerate(zip(bodies[1::2], bodies[2::2], strict=True)):
            bodies[2 * n + 1], bodies[2 * n + 2] = first + second, _NOT_CODED
        for n, (body, old) in enumerate(zip(bodies, coded, strict=True)):
            packet = Packet(body)
            packet.stream, packet.pts, packet.dts, packet.time_base = to, n, n, 1 / recipe.fps
            packet.is_keyframe = old.is_keyframe
            out.mux(packet)


_LAVC = re.compile(rb"\x00\x00\x01\xb2Lavc[0-9.]+")
_DIVX = b"\x00\x00\x01\xb2DivX503b1393p"
_NOT_CODED = b"\x00\x00\x01\xb6\x50\x5f"
