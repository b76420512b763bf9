"""Kinds by shape: pixel aspect ratios, clean apertures, cropping, and what lies about them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial

from kinds import surgery
from kinds.kind import Kind
from kinds.recipes import AVI, HEVC, MPEG2, PLAIN, VP9, with_x264

__all__ = ["SHAPES", "shown", "with_elements"]

SHORT = replace(PLAIN, frames=20, size=(90, 72))
"""Short clips, whose size in square pixels is 128x72 if pixels are 64:45."""
PAL = replace(SHORT, pixel_aspect=Fraction(64, 45))
MATROSKA = replace(SHORT, name="clip.mkv")
FRAMED = replace(SHORT, border=(10, 8, 20, 16))
"""Clips with a border, stored in 120x96."""
APERTURE = surgery.clean_aperture(90, 1, 72, 1, -5, 1, -4, 1)
CROPS = tuple(
    surgery.element(name, pixels)
    for name, pixels in zip((0x54CC, 0x54BB, 0x54DD, 0x54AA), FRAMED.border, strict=True)
)
DISPLAY_UNIT, DISPLAY_WIDTH, DISPLAY_HEIGHT = 0x54B2, 0x54B0, 0x54BA

short = partial(Kind, clip_s=(0.22, 0.61))


def with_boxes(*boxes: bytes, drop: bytes = b"") -> partial[bytes]:
    return partial(_with_boxes, boxes=boxes, drop=drop)


def _with_boxes(content: bytes, boxes: tuple[bytes, ...], drop: bytes) -> bytes:
    return surgery.with_entry_boxes(content, *boxes, drop=drop)


def with_elements(*elements: bytes) -> partial[bytes]:
    return partial(_with_elements, elements=elements)


def _with_elements(content: bytes, elements: tuple[bytes, ...]) -> bytes:
    return surgery.with_video_elements(content, *elements)


def shown(width: int, height: int, unit: int = 0) -> tuple[bytes, ...]:
    """Returns the elements of a size on screen: in pixels, or with unit 3 as a ratio."""
    fields = (DISPLAY_WIDTH, width), (DISPLAY_HEIGHT, height), (DISPLAY_UNIT, unit)
    return tuple(surgery.element(name, value) for name, value in fields)


def _with_track_and_boxes(content: bytes, boxes: tuple[bytes, ...]) -> bytes:
    edited = surgery.with_entry_boxes(content, *boxes, drop=b"pasp")
    return surgery.with_track_size(edited, *SHORT.size)


ASPECTS = {
    "wide pixels, mp4": short(PAL),
    "wide pixels, mkv": short(replace(PAL, name="clip.mkv")),
    "wide pixels, ts": short(replace(PAL, name="clip.ts")),
    "wide pixels, raw H.264": short(
        replace(PAL, name="clip.h264"), inexact="it stores no times", may_miss=True
    ),
    "wide pixels, avi": short(replace(AVI, frames=20, codec="mpeg4", pixel_aspect=Fraction(4, 3))),
    "wide pixels, MPEG-2": short(replace(MPEG2, frames=20, pixel_aspect=Fraction(4, 3))),
    "wide pixels, HEVC, ts": short(
        replace(HEVC, frames=20, name="clip.ts", pixel_aspect=Fraction(4, 3))
    ),
    "wide pixels, VP9": short(
        replace(VP9, frames=20), edit=with_elements(*shown(128, 72)), sizes=((128, 72),)
    ),
    "wide pixels, ProRes": short(
        replace(
            PAL, name="clip.mov", frames=10, codec="prores_ks", pixel_format="yuv422p10le"
        ),
        clip_s=(0.1, 0.3),
    ),
    "high pixels, mp4": short(replace(SHORT, pixel_aspect=Fraction(8, 9))),
    "high pixels, mkv": short(replace(MATROSKA, pixel_aspect=Fraction(8, 9))),
    "wide pixels, turned": short(replace(PAL, size=(72, 90), turned_degrees=90), sizes=((72, 128),)),
    "wide pixels by the stream alone": short(
        PAL, edit=with_boxes(drop=b"pasp")
    ),
    "wide pixels by the container alone": short(
        SHORT, edit=with_boxes(surgery.pixel_aspect(64, 45), drop=b"pasp"), sizes=((128, 72),)
    ),
    "pixels by the container and other ones by the stream": short(
        with_x264("sar=2\\:1", SHORT),
        edit=with_boxes(surgery.pixel_aspect(64, 45), drop=b"pasp"),
        sizes=((128, 72),),
    ),
    "a size on screen, mkv": short(MATROSKA, edit=with_elements(*shown(128, 72)), sizes=((128, 72),)),
    "a ratio on screen, mkv": short(MATROSKA, edit=with_elements(*shown(16, 9, 3)), sizes=((128, 72),)),
    "pixels of 65535:1": short(
        SHORT,
        edit=with_boxes(surgery.pixel_aspect(65535, 1), drop=b"pasp"),
        sizes=((90, 72),),
        warned=("pixel_aspect_ignored",),
    ),
    "a size on screen of 1x65535, mkv": short(
        MATROSKA,
        edit=with_elements(*shown(1, 65535)),
        sizes=((90, 72),),
        warned=("pixel_aspect_ignored",),
    ),
}  # fmt: skip
CROPPED = {
    "clean aperture": short(FRAMED, edit=with_boxes(APERTURE)),
    "clean aperture, wide pixels": short(
        replace(FRAMED, pixel_aspect=Fraction(64, 45)), edit=with_boxes(APERTURE)
    ),
    "clean aperture, track of its size": short(
        FRAMED, edit=partial(_with_track_and_boxes, boxes=(APERTURE,))
    ),
    "clean aperture, turned": short(
        replace(FRAMED, size=(72, 90), border=(8, 20, 16, 10), turned_degrees=90),
        edit=with_boxes(APERTURE),
    ),
    "clean aperture in fractions": short(
        FRAMED, edit=with_boxes(surgery.clean_aperture(181, 2, 145, 2, -21, 4, -17, 4))
    ),
    "clean aperture outside": short(
        SHORT,
        edit=with_boxes(surgery.clean_aperture(90, 1, 72, 1, 50, 1, 0, 1)),
        warned=("cropping_ignored",),
    ),
    "clean aperture of one pixel": short(
        SHORT,
        edit=with_boxes(surgery.clean_aperture(1, 1, 1, 1, 0, 1, 0, 1)),
        warned=("cropping_ignored",),
    ),
    "clean aperture divided by 0": short(
        SHORT,
        edit=with_boxes(surgery.clean_aperture(90, 0, 72, 0, 0, 0, 0, 0)),
        warned=("cropping_ignored",),
    ),
    "cropped, mkv": short(replace(FRAMED, name="clip.mkv"), edit=with_elements(*CROPS)),
    "cropped, a size on screen, mkv": short(
        replace(FRAMED, name="clip.mkv"),
        edit=with_elements(*CROPS, *shown(128, 72)),
        sizes=((128, 72),),
    ),
    "cropped, webm": short(
        replace(VP9, frames=20, size=(90, 72), border=FRAMED.border), edit=with_elements(*CROPS)
    ),
}

SHAPES: dict[str, Kind] = {**ASPECTS, **CROPPED}
