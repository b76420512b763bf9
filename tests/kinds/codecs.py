"""Kinds by codec: references between pictures, pixel formats, and rotations."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from kinds.kind import Kind
from kinds.recipes import (
    ALT_REF,
    AV1,
    AVI,
    BASE,
    HEVC,
    LONG,
    MKV,
    MPEG2,
    PLAIN,
    TS,
    VP9,
    WEBM,
    with_x264,
    with_x265,
)
from kinds.writers import RESIZED, write_resized, write_theora, write_with_units

__all__ = ["CODECS"]

MID = replace(BASE, frames=80)
MOV = replace(PLAIN, name="clip.mov")
WMV = replace(PLAIN, name="clip.wmv", format="asf")
CUT_MESSAGE = b"\x4e\1\5\xc8" + 20 * b"x" + b"\x80"
"""An SEI that claims to have 200 bytes."""
CRA = "keyint=12:min-keyint=12:bframes=4:open-gop=1"

H264 = {
    "no B-frames": Kind(PLAIN),
    "B-frames": Kind(BASE),
    "B-frames as references": Kind(
        with_x264("b-pyramid=normal:keyint=24", replace(BASE, b_frames=3))
    ),
    "strict pyramid": Kind(with_x264("b-pyramid=strict", replace(LONG, gop=250, b_frames=7))),
    "one long GOP": Kind(replace(LONG, gop=1000)),
    "open GOPs": Kind(with_x264("open-gop=1:keyint=12:bframes=3", MID)),
    "open GOPs, mkv": Kind(
        with_x264("open-gop=1:keyint=12:bframes=3", replace(MKV, frames=80))
    ),
    "open GOPs, ts": Kind(with_x264("open-gop=1:keyint=12:bframes=3", replace(TS, frames=80))),
    "intra refresh": Kind(with_x264("intra-refresh=1:keyint=12", MID)),
    "intra refresh, ts": Kind(with_x264("intra-refresh=1:keyint=12", replace(TS, frames=80))),
    "all intra": Kind(replace(PLAIN, gop=1)),
    "weighted prediction": Kind(with_x264("weightp=2:weightb=1", BASE)),
    "16 reference pictures": Kind(with_x264("ref=16:bframes=5", BASE)),
    "four slices": Kind(with_x264("slices=4:sliced-threads=1", BASE)),
    "baseline profile": Kind(replace(PLAIN, codec_options={"profile": "baseline"})),
    "interlaced, top first": Kind(with_x264("tff=1", BASE)),
    "interlaced, bottom first, ts": Kind(with_x264("bff=1", TS)),
    "progressive marked interlaced": Kind(with_x264("pic-struct=1:fake-interlaced=1", BASE)),
    "B-frames at the very end": Kind(
        with_x264("scenecut=0", replace(BASE, frames=47, gop=250, b_frames=7))
    ),
    "10 bit": Kind(replace(BASE, pixel_format="yuv420p10le")),
    "4:2:2": Kind(replace(BASE, pixel_format="yuv422p")),
    "4:2:2, 10 bit": Kind(replace(BASE, pixel_format="yuv422p10le")),
    "4:4:4, odd size": Kind(replace(BASE, size=(101, 75), pixel_format="yuv444p")),
    "grey": Kind(replace(BASE, pixel_format="gray")),
    "full range": Kind(replace(BASE, pixel_format="yuvj420p")),
    "lossless RGB": Kind(replace(BASE, codec="libx264rgb", pixel_format="rgb24")),
    "cropped to 130x98": Kind(replace(BASE, size=(130, 98))),
    "wide pixels (SAR 16:11)": Kind(with_x264("sar=16\\:11", BASE), sizes=((140, 72),)),
    "tall and thin": Kind(replace(BASE, size=(48, 640))),
}  # fmt: skip
HEVCS = {
    "HEVC, no B-frames": Kind(with_x265("keyint=12:bframes=0", BASE)),
    "HEVC, B-frames": Kind(HEVC),
    "HEVC, open GOPs (CRA, RASL)": Kind(with_x265(CRA, MID)),
    "HEVC, open GOPs, mkv": Kind(with_x265(CRA, replace(MKV, frames=80))),
    "HEVC, open GOPs, ts": Kind(with_x265(CRA, replace(TS, frames=80))),
    "HEVC, leading pictures (RADL)": Kind(
        with_x265("keyint=12:bframes=4:radl=2:open-gop=0", MID)
    ),
    "HEVC, temporal layers": Kind(with_x265("keyint=24:bframes=4:temporal-layers=3", LONG)),
    "HEVC, fields as pictures": Kind(
        with_x265("keyint=12:bframes=2:interlace=tff", BASE),
        sizes=((96, 144),),
        warned=("fields_apart",),
    ),
    "HEVC, a message cut off": Kind(
        with_x265(CRA, replace(MKV, frames=80)), partial(write_with_units, unit=CUT_MESSAGE)
    ),
    "HEVC, messages cut off, no B-frames": Kind(
        with_x265("keyint=12:bframes=0", BASE),
        partial(write_with_units, unit=CUT_MESSAGE, all_packets=True),
    ),
    "HEVC, messages cut off, ts": Kind(
        with_x265(CRA, replace(TS, frames=80)),
        partial(write_with_units, unit=CUT_MESSAGE, all_packets=True),
    ),
    "HEVC, an empty unit": Kind(HEVC, partial(write_with_units, unit=b"\x4e\1")),
    "HEVC, no picture parameters": Kind(
        HEVC,
        partial(write_with_units, unit=b"\x44\1\xff\xff\xff"),
        inexact="its parameters may have been others",
    ),
    "HEVC, 10 bit": Kind(replace(HEVC, pixel_format="yuv420p10le")),
    "HEVC, 4:4:4": Kind(replace(HEVC, pixel_format="yuv444p")),
}  # fmt: skip
OPEN = {
    "AV1": Kind(AV1),
    "AV1, mkv": Kind(replace(AV1, name="clip.mkv")),
    "AV1, 10 bit": Kind(replace(AV1, pixel_format="yuv420p10le")),
    "VP9, hidden frames": Kind(replace(VP9, frames=80)),
    "VP9 in mp4": Kind(replace(VP9, name="clip.mp4", frames=80)),
    "VP9, transparent": Kind(replace(VP9, pixel_format="yuva420p")),
    "VP9, 4:4:4": Kind(replace(VP9, pixel_format="yuv444p", size=(101, 75))),
    "VP9, size changes": Kind(VP9, write_resized, sizes=RESIZED),
    "VP9, size changes, mp4": Kind(replace(VP9, name="clip.mp4"), write_resized, sizes=RESIZED),
    "VP8": Kind(WEBM),
    "VP8, hidden frames": Kind(replace(WEBM, frames=80, codec_options=ALT_REF)),
    "VP8, transparent": Kind(
        replace(WEBM, pixel_format="yuva420p", codec_options={"auto-alt-ref": "0"})
    ),
    "VP8, odd size": Kind(replace(WEBM, size=(129, 97))),
    "VP8, ogg": Kind(replace(WEBM, name="clip.ogg")),
    "Theora": Kind(
        replace(PLAIN, name="clip.ogv", codec="theora", frames=30), write_theora, clip_s=(0.3, 1)
    ),
    "FFV1": Kind(replace(MKV, b_frames=0, codec="ffv1")),
    "FFV1, 16 bit grey": Kind(replace(MKV, b_frames=0, codec="ffv1", pixel_format="gray16le")),
}
OLDER = {
    "MPEG-1": Kind(replace(MPEG2, codec="mpeg1video")),
    "MPEG-2": Kind(MPEG2),
    "MPEG-2, interlaced": Kind(replace(MPEG2, codec_options={"flags": "+ildct+ilme"})),
    "MPEG-2, vob": Kind(replace(MPEG2, format="vob")),
    "MPEG-2, ts": Kind(replace(TS, codec="mpeg2video")),
    "MPEG-2, ts, 4:2:2": Kind(replace(TS, codec="mpeg2video", pixel_format="yuv422p")),
    "MPEG-4 part 2": Kind(replace(BASE, codec="mpeg4")),
    "MPEG-4 part 2, mkv": Kind(
        replace(MKV, codec="mpeg4", codec_options={"flags": "+qpel+mv4"})
    ),
    "H.263, 3gp": Kind(
        replace(PLAIN, name="clip.3gp", codec="h263", size=(128, 96)), sizes=((140, 96),)
    ),
    "WMV 1": Kind(replace(WMV, codec="wmv1")),
    "WMV 2": Kind(replace(WMV, codec="wmv2")),
    "MS MPEG-4 v2, asf": Kind(replace(WMV, codec="msmpeg4v2")),
    "Sorenson, flv": Kind(replace(PLAIN, name="clip.flv", codec="flv")),
    "MJPEG, avi": Kind(replace(AVI, codec="mjpeg", pixel_format="yuvj420p")),
    "HuffYUV, avi": Kind(replace(AVI, codec="huffyuv", pixel_format="yuv422p")),
    "uncompressed, avi": Kind(replace(AVI, codec="rawvideo", pixel_format="bgr24")),
    "uncompressed, mkv": Kind(replace(MKV, b_frames=0, codec="rawvideo")),
    "ProRes": Kind(replace(MOV, codec="prores_ks", pixel_format="yuv422p10le")),
    "ProRes 4444, transparent": Kind(
        replace(MOV, codec="prores_ks", pixel_format="yuva444p10le")
    ),
    "DNxHR": Kind(
        replace(
            MOV,
            codec="dnxhd",
            pixel_format="yuv422p",
            size=(256, 128),
            frames=20,
            codec_options={"profile": "dnxhr_sq"},
        ),
        clip_s=(0.22, 0.7),
    ),
    "QuickTime Animation": Kind(replace(MOV, codec="qtrle", pixel_format="rgb24")),
    "PNG, mov": Kind(replace(MOV, codec="png", pixel_format="rgba")),
}  # fmt: skip
TURNED = {
    f"turned {degrees}{', mirrored' if mirrored else ''}{', mkv' if matroska else ''}": Kind(
        replace(MKV if matroska else BASE, turned_degrees=degrees, mirrored=mirrored)
    )
    for matroska in (False, True)
    for degrees, mirrored in ((90, False), (180, False), (270, False), (0, True), (90, True))
}

CODECS: dict[str, Kind] = {**H264, **HEVCS, **OPEN, **OLDER, **TURNED}
