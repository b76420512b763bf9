"""Kinds by container: place of the index, other streams, and clips of few pictures."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial

from support.videos import Recipe

from kinds import surgery
from kinds.kind import Kind
from kinds.recipes import (
    AVI,
    BASE,
    FRAGMENTS,
    GIF,
    MKV,
    MPEG2,
    PLAIN,
    TENTH,
    TS,
    flags,
    with_x264,
    with_x265,
)
from kinds.writers import (
    RESIZED,
    write_joined_late,
    write_resized,
    write_two_streams,
    write_with_cover,
)

__all__ = ["CONTAINERS"]


def joined_late(recipe: Recipe) -> Kind:
    """Makes a kind that begins with the second keyframe: its first five packets are missing."""
    return Kind(
        replace(recipe, frames=50),
        partial(write_joined_late, after=5),
        numbers=tuple(range(12, 50)),
        times_s=tuple(Fraction(n, 25) for n in range(38)),
        offset_s=Fraction(8, 25),
    )


MP4 = {
    "mp4, index first": Kind(flags("faststart", BASE)),
    "mov": Kind(replace(BASE, name="clip.mov")),
    "mp4, negative cts": Kind(flags("negative_cts_offsets", BASE)),
    "mp4, fragments": Kind(flags(FRAGMENTS, BASE)),
    "mp4, fragments without mfra": Kind(
        flags(FRAGMENTS, BASE), edit=surgery.without_fragment_index
    ),
    "mp4, a fragment a picture": Kind(
        flags("frag_every_frame+empty_moov+default_base_moof", BASE)
    ),
    "mp4, fragments after a full index": Kind(flags("frag_keyframe", BASE)),
    "mp4, DASH with sidx": Kind(flags(f"{FRAGMENTS}+default_base_moof+dash+global_sidx", BASE)),
    "mp4, CMAF": Kind(flags("cmaf+frag_keyframe+empty_moov", PLAIN)),
    "mp4, hybrid": Kind(flags("hybrid_fragmented", BASE)),
}  # fmt: skip
OTHERS = {
    "mkv": Kind(replace(MKV, frames=80)),
    "mkv without cues": Kind(replace(MKV, frames=80), edit=surgery.without_cues),
    "mkv, live: no sizes, no length": Kind(replace(MKV, frames=80, options={"live": "1"})),
    "mkv, small clusters": Kind(
        replace(MKV, frames=80, options={"cluster_time_limit": "100"})
    ),
    "ts": Kind(replace(TS, frames=80)),
    "ts, 192-byte packets": Kind(
        replace(TS, name="clip.m2ts", options={"mpegts_m2ts_mode": "1"})
    ),
    "ts, joined late": joined_late(with_x264("keyint=12:scenecut=0:bframes=2", TS)),
    "ts, joined late, HEVC": joined_late(with_x265("keyint=12:min-keyint=12:open-gop=1:bframes=3", TS)),
    "ts, joined late, MPEG-2": joined_late(replace(TS, codec="mpeg2video")),
    "mpg, joined late": joined_late(MPEG2),
    "ts, size changes": Kind(TS, write_resized, sizes=RESIZED),
    "flv": Kind(replace(BASE, name="clip.flv")),
    "gif": Kind(GIF),
}  # fmt: skip
BESIDE = {
    "sound longer": Kind(replace(BASE, sound_s=6)),
    "sound longer, mkv": Kind(replace(MKV, sound_s=6)),
    "sound longer, ts": Kind(replace(TS, sound_s=6)),
    "sound longer, flv": Kind(replace(BASE, name="clip.flv", sound_s=6)),
    "sound longer, avi": Kind(
        replace(AVI, codec="mpeg4", sound_s=6, options={"avoid_negative_ts": "disabled"})
    ),
    "two video streams": Kind(BASE, write_two_streams),
    "two video streams, mkv": Kind(MKV, write_two_streams),
    "a cover and a video": Kind(BASE, write_with_cover),
}
FEW = {
    "one picture": Kind(replace(BASE, frames=1), clip_s=(0.01, 0.03)),
    "one picture, mkv": Kind(replace(MKV, frames=1), slack_s=TENTH, clip_s=(0.01, 0.03)),
    "one picture, ts": Kind(replace(TS, frames=1), slack_s=TENTH, clip_s=(0.01, 0.03)),
    "one picture that lasts 0 s": Kind(
        replace(PLAIN, frames=1),
        edit=surgery.without_length,
        slack_s=TENTH,
        clip_s=(0.01, 0.03),
    ),
    "two pictures": Kind(replace(BASE, frames=2), clip_s=(0.01, 0.07)),
    "three pictures": Kind(replace(BASE, frames=3), clip_s=(0.02, 0.1)),
    "a picture every 3 s": Kind(replace(BASE, fps=Fraction(1, 3), frames=10), clip_s=(4, 20)),
}

CONTAINERS: dict[str, Kind] = {**MP4, **OTHERS, **BESIDE, **FEW}
