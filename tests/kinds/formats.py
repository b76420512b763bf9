"""Kinds by container: what studios, recorders, tools and games write beside MP4, Matroska and MPEG."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from kinds.kind import Kind
from kinds.recipes import AV1, AVI, BASE, MPEG2, PLAIN, VP9, lasting
from kinds.writers import write_animation

__all__ = ["FORMATS"]

TEN = Fraction(10)
MXF = replace(MPEG2, name="clip.mxf")
PRORES = {"codec": "prores_ks", "pixel_format": "yuv422p10le"}
DNXHR = {
    "codec": "dnxhd",
    "pixel_format": "yuv422p",
    "size": (256, 128),
    "frames": 20,
    "codec_options": {"profile": "dnxhr_sq"},
}
DV = replace(PLAIN, name="clip.dv", codec="dvvideo", size=(720, 576), frames=6)
MOTION_JPEG = replace(PLAIN, codec="mjpeg", pixel_format="yuvj420p")
CINEPAK = replace(PLAIN, codec="cinepak", pixel_format="rgb24", frames=10)
SHORT = (0.1, 0.3)
UNEVEN = lasting(*(20, 40, 100, 400) * 5)[:20]

STUDIO = {
    "MXF, MPEG-2": Kind(MXF),
    "MXF, MPEG-2, 24 a second": Kind(replace(MXF, fps=Fraction(24))),
    "MXF, H.264": Kind(replace(BASE, name="clip.mxf")),
    "MXF, ProRes": Kind(replace(PLAIN, name="clip.mxf", **PRORES), clip_s=SHORT),
    "MXF, DNxHR": Kind(replace(PLAIN, name="clip.mxf", **DNXHR), clip_s=SHORT),
    "MXF, JPEG 2000": Kind(
        replace(PLAIN, name="clip.mxf", codec="jpeg2000", pixel_format="yuv422p", frames=10), clip_s=SHORT
    ),
    "MXF, OP-Atom": Kind(replace(PLAIN, name="clip.mxf", format="mxf_opatom", **DNXHR), clip_s=SHORT),
    "DV": Kind(DV, clip_s=SHORT, sizes=((768, 576),)),
    "DV, NTSC": Kind(
        replace(DV, size=(720, 480), pixel_format="yuv411p", fps=Fraction(30000, 1001)),
        clip_s=(0.05, 0.15),
        sizes=((720, 540),),
    ),
    "DV, avi": Kind(replace(AVI, codec="dvvideo", size=(720, 576), frames=6), clip_s=SHORT, sizes=((768, 576),)),
    "uncompressed 10 bit (v210), mov": Kind(
        replace(PLAIN, name="clip.mov", codec="v210", pixel_format="yuv422p10le")
    ),
}  # fmt: skip
TOOLS = {
    "IVF, VP8": Kind(replace(PLAIN, name="clip.ivf", codec="libvpx")),
    "IVF, VP9, hidden frames": Kind(replace(VP9, name="clip.ivf", frames=80)),
    "IVF, AV1": Kind(replace(AV1, name="clip.ivf", fps=TEN)),
    "AV1 stream (OBU)": Kind(replace(AV1, name="clip.obu"), inexact="it has no times"),
    "NUT": Kind(replace(BASE, name="clip.nut")),
    "NUT, uneven": Kind(replace(PLAIN, name="clip.nut", frames=20, times_s=UNEVEN)),
    "Y4M": Kind(replace(PLAIN, name="clip.y4m", codec="rawvideo", fps=TEN)),
    "Y4M, 4:2:2": Kind(replace(PLAIN, name="clip.y4m", codec="rawvideo", pixel_format="yuv422p")),
    "MPEG-4 stream (m4v)": Kind(replace(PLAIN, name="clip.m4v", format="m4v", codec="mpeg4", fps=TEN)),
    "Motion JPEG stream": Kind(
        replace(MOTION_JPEG, name="clip.mjpeg", format="mjpeg"), inexact="it has no times"
    ),
    "animated PNG": Kind(
        replace(PLAIN, name="clip.png", codec="apng", pixel_format="rgb24", format="apng", fps=TEN, frames=20)
    ),
    "animated PNG, uneven": Kind(
        replace(
            PLAIN, name="clip.png", codec="apng", pixel_format="rgb24", format="apng", frames=20, times_s=UNEVEN
        ),
        slack_s=Fraction(1, 2),
    ),
}  # fmt: skip
RECORDERS = {
    "WTV, MPEG-2": Kind(replace(MPEG2, name="clip.wtv")),
    "WTV, H.264": Kind(replace(BASE, name="clip.wtv")),
    "RealMedia, RV10": Kind(replace(PLAIN, name="clip.rm", codec="rv10", size=(96, 80))),
    "RealMedia, RV20": Kind(replace(PLAIN, name="clip.rm", codec="rv20", size=(96, 80), fps=TEN)),
    "H.263, 3g2": Kind(replace(PLAIN, name="clip.3g2", codec="h263", size=(128, 96)), sizes=((140, 96),)),
    "f4v": Kind(replace(BASE, name="clip.f4v", format="f4v")),
    "screen video, flv": Kind(
        replace(PLAIN, name="clip.flv", codec="flashsv", pixel_format="bgr24", size=(96, 80))
    ),
    "MS MPEG-4 v3, avi": Kind(replace(AVI, codec="msmpeg4")),
    "Ut Video, avi": Kind(replace(AVI, codec="utvideo")),
    "MagicYUV, avi": Kind(replace(AVI, codec="magicyuv", pixel_format="gbrp")),
    "SVCD": Kind(replace(MPEG2, format="svcd")),
}  # fmt: skip
ANIMATIONS = {
    "animated WebP": Kind(
        replace(PLAIN, name="clip.webp", frames=12, fps=TEN), write_animation, clip_s=SHORT
    ),
    "animated WebP, uneven": Kind(
        replace(PLAIN, name="clip.webp", frames=20, times_s=UNEVEN), write_animation, slack_s=Fraction(1, 2)
    ),
    "animated AVIF": Kind(
        replace(PLAIN, name="clip.avif", frames=12, fps=TEN), write_animation, clip_s=SHORT
    ),
}  # fmt: skip
GAMES = {
    "id RoQ": Kind(
        replace(
            PLAIN, name="clip.roq", codec="roqvideo", pixel_format="yuvj444p", size=(128, 128), fps=Fraction(30)
        )
    ),
    "Sega FILM, Cinepak": Kind(replace(CINEPAK, name="clip.cpk", format="film_cpk"), clip_s=SHORT),
    "Cinepak, avi": Kind(replace(CINEPAK, name="clip.avi"), clip_s=SHORT),
    "Sorenson Video 1, mov": Kind(
        replace(PLAIN, name="clip.mov", codec="svq1", pixel_format="yuv410p")
    ),
    "SMJPEG": Kind(replace(MOTION_JPEG, name="clip.mjpg", format="smjpeg", fps=TEN)),
    "Flash (swf)": Kind(replace(PLAIN, name="clip.swf", codec="flv", fps=TEN)),
}  # fmt: skip

FORMATS: dict[str, Kind] = {**STUDIO, **TOOLS, **RECORDERS, **ANIMATIONS, **GAMES}
