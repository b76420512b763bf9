"""Kinds by transparency: dark blocks are opaque, and bright ones are transparent black, so white behind them shows."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from PIL import Image
from support.videos import Recipe, draw_number

from kinds.kind import Kind
from kinds.recipes import AVI, GIF, MKV, PLAIN, TENTH, VP9, WEBM
from kinds.shapes import shown, with_elements
from kinds.writers import write_damaged_alpha

__all__ = ["TRANSPARENT"]

clear = partial(Kind, clip_s=(0.1, 0.3))


def stored(name: str, codec: str, layout: str, **options: str) -> Recipe:
    return replace(
        PLAIN,
        name=name,
        frames=10,
        codec=codec,
        pixel_format=layout,
        transparent=True,
        codec_options=options,
    )


def write_gif(path: Path, recipe: Recipe) -> None:
    """Writes a GIF of which each picture replaces the one before."""
    pictures = []
    for number in range(recipe.frames):
        blocks = draw_number(number, *recipe.size)[:, :, 0] // 255
        picture = Image.fromarray(blocks, "P")
        picture.putpalette([0, 0, 0, 0, 0, 0])
        pictures.append(picture)
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=100,
        transparency=1,
        disposal=2,
        optimize=False,
    )


def write_clear_animation(path: Path, recipe: Recipe) -> None:
    """Writes an animated WebP or AVIF by Pillow, of which bright blocks are transparent black."""
    pictures = []
    for number in range(recipe.frames):
        alpha = 255 - draw_number(number, *recipe.size)[:, :, :1]
        pictures.append(Image.fromarray(np.concatenate([alpha * 0] * 3 + [alpha], axis=2)))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)


def write_pngs(path: Path, recipe: Recipe, *, mode: str) -> None:
    """Writes PNGs in which one colour, that of the bright blocks, is transparent."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=recipe.fps)
        stream.width, stream.height = recipe.size
        stream.pix_fmt = "rgba"
        for number in range(recipe.frames):
            blocks = draw_number(number, *recipe.size)[:, :, 0] // 255
            picture = Image.fromarray(blocks, "P")
            picture.putpalette([0, 0, 0, 1, 1, 1])
            colour = {"P": 1, "L": 1, "RGB": (1, 1, 1)}[mode]
            with BytesIO() as file:
                picture.convert(mode).save(file, "PNG", transparency=colour)
                packet = av.Packet(file.getvalue())
            packet.stream, packet.time_base = stream, 1 / recipe.fps
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            out.mux(packet)


def without_alpha(content: bytes) -> bytes:
    """Zeroes the fourth byte of each pixel in the picture chunks of an uncompressed AVI."""
    edited = bytearray(content)
    at = edited.find(b"00dc", edited.index(b"movi"))
    while 0 <= at < edited.index(b"idx1"):
        size = int.from_bytes(edited[at + 4 : at + 8], "little")
        pixels = np.frombuffer(edited, np.uint8, size, at + 8)
        pixels[3::4] = 0
        at = edited.find(b"00dc", at + 8 + size)
    return bytes(edited)


VIDEO_8, VIDEO_9 = (
    replace(
        recipe,
        frames=10,
        pixel_format="yuva420p",
        transparent=True,
        codec_options={"auto-alt-ref": "0"},
    )
    for recipe in (WEBM, VP9)
)

TRANSPARENT: dict[str, Kind] = {
    "clear, VP8": clear(VIDEO_8),
    "clear, VP8, mkv": clear(replace(VIDEO_8, name="clip.mkv")),
    "clear, VP9": clear(VIDEO_9),
    "clear, VP9, several GOPs": clear(replace(VIDEO_9, frames=30, gop=6), clip_s=(0.5, 1)),
    "clear, VP9, wide pixels, turned": clear(
        replace(VIDEO_9, name="clip.mkv", size=(72, 90), turned_degrees=90),
        edit=with_elements(*shown(128, 72)),
        sizes=((72, 128),),
    ),
    **{
        f"clear, animated {kind}": clear(
            replace(PLAIN, name=f"clip.{kind.lower()}", frames=10, fps=Fraction(10)), write_clear_animation
        )
        for kind in ("AVIF", "WebP")
    },
    "clear, VP9, damaged": clear(
        replace(VIDEO_9, transparent=False), write_damaged_alpha, warned=("transparency_ignored",)
    ),
    "clear, ProRes 4444": clear(stored("clip.mov", "prores_ks", "yuva444p10le")),
    "clear, QuickTime Animation": clear(stored("clip.mov", "qtrle", "argb")),
    "clear, PNG": clear(stored("clip.mov", "png", "rgba")),
    "clear, PNG, grey": clear(stored("clip.mov", "png", "ya8")),
    "clear, PNG, 16 bit": clear(stored("clip.mov", "png", "rgba64be")),
    **{
        f"clear, PNG, a colour of {mode}": clear(
            stored("clip.mov", "png", "rgba"), partial(write_pngs, mode=mode)
        )
        for mode in ("P", "L", "RGB")
    },
    "clear, JPEG 2000": clear(stored("clip.mov", "jpeg2000", "rgba")),
    "clear, CineForm": clear(stored("clip.mov", "cfhd", "gbrap12le")),
    "clear, FFV1": clear(stored("clip.mkv", "ffv1", "yuva420p")),
    "clear, FFV1, 16 bit": clear(stored("clip.mkv", "ffv1", "yuva444p16le")),
    "clear, Ut Video": clear(stored("clip.avi", "utvideo", "gbrap")),
    "clear, HuffYUV": clear(stored("clip.avi", "huffyuv", "rgb32")),
    "clear, uncompressed": clear(stored("clip.avi", "rawvideo", "bgra")),
    "clear, gif": clear(
        replace(GIF, frames=10), write_gif, slack_s=TENTH, clip_s=(0.2, 0.8)
    ),
    "uncompressed, a byte unused": clear(
        replace(AVI, frames=10, codec="rawvideo", pixel_format="bgra"), edit=without_alpha
    ),
    "FFV1, opaque with alpha": clear(
        replace(MKV, frames=10, b_frames=0, codec="ffv1", pixel_format="yuva420p")
    ),
}  # fmt: skip
