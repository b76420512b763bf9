"""Kinds by tags that cost no frame: colours, field order, junk in what is optional."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from kinds import surgery
from kinds.kind import Kind
from kinds.recipes import MKV, MPEG2, PLAIN, TS, with_x264

__all__ = ["TAGGED"]

SHORT = replace(PLAIN, frames=20)
APPROXIMATED = ("colours_approximated",)

short = partial(Kind, clip_s=(0.22, 0.7))


def tag(params: str, *, warned: tuple[str, ...] = ()) -> Kind:
    """Makes a kind of H.264 with these tags, most of which contradict its pictures."""
    return short(with_x264(params, SHORT), warned=warned)


def with_junk(content: bytes) -> bytes:
    """Puts user data that is no text into the moov box, which stands last."""
    at = content.index(b"moov") - 4
    junk = surgery.box(b"udta", surgery.box(b"\xa9nam", b"\xff" * 40) + b"\xfe" * 7)
    return content[:at] + surgery.box(b"moov", content[at + 8 :] + junk)


def with_foreign_tag(content: bytes) -> bytes:
    """Makes the name of a Matroska tag invalid UTF-8."""
    return content.replace(b"ENCODER", b"\xff\xfe\xc3\x28\x80\x81\x82")


MATRICES = {
    f"matrix {name}": tag(f"colormatrix={name}")
    for name in ("bt709", "fcc", "bt470bg", "smpte240m", "bt2020nc")
}
FOREIGN = {
    f"matrix {name}": tag(f"colormatrix={name}", warned=APPROXIMATED)
    for name in ("YCgCo", "bt2020c", "smpte2085", "chroma-derived-nc", "chroma-derived-c")
}
TRANSFERS = {
    f"transfer {name}": tag(f"transfer={name}", warned=APPROXIMATED if name == "log100" else ())
    for name in ("bt470m", "smpte240m", "log100", "iec61966-2-4", "bt1361e")
}
PLACES = {f"chroma location {number}": tag(f"chromaloc={number}") for number in range(1, 6)}
FIELDS = {
    "MPEG-2, interlaced, ts": short(
        replace(TS, codec="mpeg2video", frames=20, codec_options={"flags": "+ildct+ilme"})
    ),
    "MPEG-2, interlaced, no B-frames": short(
        replace(MPEG2, frames=20, b_frames=0, codec_options={"flags": "+ildct+ilme"})
    ),
    "MPEG-4 part 2, interlaced": short(
        replace(SHORT, codec="mpeg4", codec_options={"flags": "+ildct+ilme"})
    ),
    "H.264, interlaced, mkv": short(with_x264("tff=1", replace(MKV, frames=20))),
    "H.264, interlaced, 10 bit": short(
        with_x264("bff=1", replace(SHORT, pixel_format="yuv420p10le"))
    ),
}
JUNK = {
    "mp4, user data that is no text": short(SHORT, edit=with_junk),
    "mkv, a tag that is no text": short(replace(MKV, frames=20), edit=with_foreign_tag),
}

TAGGED: dict[str, Kind] = {**MATRICES, **FOREIGN, **TRANSFERS, **PLACES, **FIELDS, **JUNK}
