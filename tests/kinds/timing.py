"""Kinds by timing: rates, clocks, edit lists, pauses, and missing or repeated times."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial

from kinds import surgery
from kinds.kind import Kind
from kinds.recipes import (
    AVI,
    BASE,
    FRAGMENTS,
    GIF,
    HEVC,
    MKV,
    MPEG2,
    PLAIN,
    TENTH,
    TS,
    at_pts,
    flags,
    lasting,
)
from kinds.writers import (
    write_by_decoding_time,
    write_continued,
    write_joined,
    write_packed_avi,
    write_twice_timed,
)

__all__ = ["TIMING"]

UNEVEN = lasting(*((20, 33, 40, 100, 400)[k * k % 5] for k in range(59)))
FROZEN = lasting(*(3000 if n == 20 else 40 for n in range(49)))
TENS = lasting(*((100, 20, 350, 60)[n % 4] for n in range(29)))
DROPPED = lasting(*((40, 120, 40, 80)[n % 4] for n in range(49)))
PICTURE = 512
"""Ticks of MP4's clock at 25 a second."""

uneven = partial(Kind, end_s=UNEVEN[-1] + TENTH, slack_s=TENTH)
frozen = partial(Kind, slack_s=TENTH, clip_s=(0.5, 4.4))


def edited(*edits: tuple[int, int]) -> partial[bytes]:
    return partial(surgery.with_edits, edits=edits)


RATES = {
    "23.976 a second": Kind(replace(BASE, fps=Fraction(24_000, 1001))),
    "23.976 a second, ts": Kind(replace(TS, fps=Fraction(24_000, 1001), frames=90)),
    "29.97 a second": Kind(replace(BASE, fps=Fraction(30_000, 1001), frames=100)),
    "29.97 a second, avi": Kind(
        replace(AVI, b_frames=2, codec="mpeg4", fps=Fraction(30_000, 1001), frames=60)
    ),
    "59.94 a second": Kind(replace(BASE, fps=Fraction(60_000, 1001), frames=100)),
    "60 a second, mkv": Kind(replace(MKV, fps=Fraction(60), frames=100)),
    "1000 a second": Kind(replace(BASE, fps=Fraction(1000), frames=200), clip_s=(0.05, 0.17)),
    "1000 a second, mkv": Kind(replace(MKV, fps=Fraction(1000), frames=200), clip_s=(0.05, 0.17)),
    "1 a second": Kind(replace(BASE, fps=Fraction(1), frames=20)),
    "a picture every 10 s": Kind(replace(BASE, fps=Fraction(1, 10), frames=12), clip_s=(20.5, 60)),
    "a clock of 1/90000": Kind(replace(BASE, clock_s=Fraction(1, 90_000))),
    "a clock of 1/15360": Kind(replace(BASE, clock_s=Fraction(1, 15_360))),
}
UNEVENS = {
    "uneven": uneven(replace(BASE, frames=60, times_s=UNEVEN)),
    "uneven, no B-frames": uneven(replace(PLAIN, frames=60, times_s=UNEVEN)),
    "uneven, mkv": uneven(replace(MKV, frames=60, times_s=UNEVEN)),
    "uneven, ts": uneven(replace(TS, frames=60, times_s=UNEVEN)),
    "uneven, flv": uneven(replace(BASE, name="clip.flv", frames=60, times_s=UNEVEN)),
    "uneven, fragments": uneven(flags(FRAGMENTS, replace(BASE, frames=60, times_s=UNEVEN))),
    "uneven, gif": Kind(
        replace(GIF, frames=30, times_s=TENS), end_s=TENS[-1] + TENTH, slack_s=TENTH
    ),
    "frozen for 3 s": frozen(replace(BASE, times_s=FROZEN)),
    "frozen for 3 s, mkv": frozen(replace(MKV, times_s=FROZEN)),
    "frozen for 3 s, ts": frozen(replace(TS, times_s=FROZEN)),
    "pictures dropped, avi": Kind(
        replace(AVI, codec="mpeg4", times_s=DROPPED, clock_s=Fraction(1, 25)), slack_s=TENTH
    ),
    "pictures dropped, avi, B-frames": Kind(
        replace(AVI, b_frames=2, codec="mpeg4", times_s=DROPPED, clock_s=Fraction(1, 25)),
        slack_s=TENTH,
        inexact="AVI stores times of decoding only",
        may_miss=True,
    ),
}
EDITS = {
    "edit list, start cut": Kind(
        at_pts(Fraction(-1, 5), BASE), numbers=tuple(range(5, 50))
    ),
    "edit list, start cut, no B-frames": Kind(
        at_pts(Fraction(-1, 5), PLAIN), numbers=tuple(range(5, 50))
    ),
    "edit list, start cut within a GOP": Kind(
        PLAIN, edit=edited((1200, 7 * PICTURE)), numbers=tuple(range(7, 37))
    ),
    "edit list, end cut": Kind(PLAIN, edit=edited((1200, 0)), numbers=tuple(range(30))),
    "edit list, start delayed": Kind(PLAIN, edit=edited((1000, -1), (2000, 0))),
    "edit list, two parts": Kind(
        PLAIN,
        edit=edited((400, 5 * PICTURE), (800, 25 * PICTURE)),
        numbers=(*range(5, 15), *range(25, 45)),
    ),
    "edit list, a pause midway": Kind(
        PLAIN,
        edit=edited((400, 0), (1000, -1), (1600, 10 * PICTURE)),
        times_s=tuple(Fraction(n, 25) + (n >= 10) for n in range(50)),
        slack_s=TENTH,
        clip_s=(0.2, 2.4),
        inexact="FFmpeg knows pauses at the start only",
        may_miss=True,
    ),
    "first pts at 5 s": Kind(replace(BASE, first_pts_s=Fraction(5))),
    "first pts at 5 s, mkv": Kind(replace(MKV, first_pts_s=Fraction(5))),
    "negative pts, mkv": Kind(
        at_pts(Fraction(-1, 5), MKV), inexact="Matroska's clusters cannot count below 0"
    ),
    "clock wraps around, ts": Kind(
        replace(TS, first_pts_s=Fraction(2**33, 90_000) - 2), slack_s=TENTH
    ),
    "clock starts over, ts": Kind(
        TS,
        write_joined,
        numbers=(*range(50), *range(50)),
        times_s=tuple(Fraction(n, 25) for n in range(100)),
        inexact="each time comes twice",
    ),
    "clock jumps ahead, ts": Kind(
        replace(TS, frames=100),
        write_continued,
        times_s=tuple(Fraction(n, 25) + (8 if n >= 50 else 0) for n in range(100)),
        slack_s=TENTH,
        clip_s=(1, 11.4),
    ),
}  # fmt: skip
LATE = replace(BASE, frames=20, sound_s=3, first_pts_s=Fraction(12, 5))
late = partial(Kind, offset_s=Fraction(12, 5), clip_s=(0.22, 0.61))
DELAYED = {
    "sound before pictures": late(LATE),
    "sound before pictures, fragments": late(flags("frag_keyframe+delay_moov", LATE)),
    "sound before pictures, no B-frames": late(replace(LATE, b_frames=0)),
    "sound before pictures, mkv": late(replace(LATE, name="clip.mkv")),
    "sound before pictures, ts": late(replace(LATE, name="clip.ts")),
    "sound before pictures, flv": late(replace(LATE, name="clip.flv")),
    "sound before pictures, MPEG-4": late(
        replace(LATE, codec="mpeg4", name="clip.mov")
    ),
    "sound and pictures at 5 s, ts": Kind(
        replace(LATE, name="clip.ts", sound_s=0.8, sound_from_s=5, first_pts_s=Fraction(5)),
        clip_s=(0.22, 0.61),
    ),
    "pictures before sound": Kind(
        replace(LATE, first_pts_s=Fraction(0), sound_from_s=0.4, sound_s=0.4), clip_s=(0.22, 0.61)
    ),
}  # fmt: skip
UNTIMED = {
    "H.264 with B-frames, avi": Kind(replace(BASE, name="clip.avi")),
    "MPEG-4 with B-frames, avi": Kind(replace(BASE, name="clip.avi", codec="mpeg4")),
    "MPEG-4, packed B-frames, avi": Kind(
        replace(AVI, codec="mpeg4", b_frames=1, frames=49), write_packed_avi
    ),
    **{
        f"B-frames without own times, {name}": Kind(
            replace(BASE, name=f"clip.{name}"),
            write_by_decoding_time,
        )
        for name in ("mp4", "mkv", "flv")
    },
    "raw H.264": Kind(replace(BASE, name="clip.h264"), inexact="it stores no times"),
    "raw H.264, 30 a second": Kind(
        replace(BASE, name="clip.h264", fps=Fraction(30)),
        slack_s=Fraction(1),
        inexact="it stores no times",
        may_miss=True,
    ),
    "raw HEVC": Kind(replace(HEVC, name="clip.hevc"), inexact="it stores no times"),
    "raw MPEG-2": Kind(replace(MPEG2, name="clip.m2v", format="mpeg2video")),
    "two pictures at one time, mkv": Kind(
        replace(MKV, b_frames=0, codec="mjpeg", pixel_format="yuvj420p"),
        write_twice_timed,
        times_s=tuple(Fraction(n + (n == 20), 25) for n in range(50)),
        inexact="which of the two is on screen is not said",
        may_miss=True,
    ),
}

TIMING: dict[str, Kind] = {**RATES, **UNEVENS, **EDITS, **DELAYED, **UNTIMED}
