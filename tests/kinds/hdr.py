"""Kinds in HDR and in wide primaries: two colours of SDR, graded at 203 cd/m2."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from support.hdr import Grade
from support.videos import Recipe

from kinds.kind import Kind
from kinds.recipes import AV1, BASE, MKV, PLAIN, TS, VP9, with_x264, with_x265
from kinds.surgery import with_dolby_vision
from kinds.writers import write_stored

__all__ = ["HDR"]

PQ, HLG = Grade("pq"), Grade("hlg")
DOLBY_IPT = Grade("pq", full_range=True, coded="ipt", tagged="none")
FEW = 24
MASTERED = (
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    ":max-cll=1000,400:hdr10=1"
)


def in_hevc(grade: Grade, recipe: Recipe = BASE, params: str = "keyint=12:bframes=2") -> Kind:
    """Returns a clip of 10 bits in HEVC."""
    recipe = with_x265(params, replace(recipe, frames=FEW, grade=grade))
    if recipe.pixel_format == "yuv420p":
        recipe = replace(recipe, pixel_format="yuv420p10le")
    return Kind(recipe, clip_s=(0.2, 0.7))


def in_format(grade: Grade, recipe: Recipe, pixel_format: str = "yuv420p10le") -> Kind:
    """Returns a clip of this codec."""
    recipe = replace(recipe, frames=FEW, grade=grade, pixel_format=pixel_format)
    return Kind(recipe, clip_s=(0.2, 0.7))


def in_vp9(grade: Grade, name: str) -> Kind:
    """Returns a stored clip."""
    recipe = replace(VP9, name=name, frames=FEW, grade=grade)
    return Kind(recipe, write_stored, clip_s=(0.2, 0.7))


HDR = {
    "HLG, HEVC": in_hevc(HLG),
    "HLG, HEVC, mkv": in_hevc(HLG, MKV),
    "HLG, HEVC, ts": in_hevc(HLG, TS),
    "HLG, HEVC, full range": in_hevc(replace(HLG, full_range=True)),
    "HLG, HEVC, turned": in_hevc(HLG, replace(BASE, turned_degrees=90)),
    "HLG, HEVC, 4:2:2": in_hevc(HLG, replace(BASE, pixel_format="yuv422p10le")),
    "HLG, HEVC, tags in mp4 only": in_hevc(replace(HLG, tagged="container")),
    "HLG, HEVC, tags in mkv only": in_hevc(replace(HLG, tagged="container"), MKV),
    "HLG, HEVC, matrix untagged": in_hevc(replace(HLG, primaries=2, matrix=2)),
    "HLG, H.264": in_format(HLG, BASE),
    "HLG, VP9": in_vp9(HLG, "vp9_hlg.webm"),
    "HLG, VP9, 8 bit": in_format(HLG, VP9, "yuv420p"),
    "HLG, AV1": in_format(HLG, AV1),
    "HLG, ProRes": in_format(
        HLG, replace(PLAIN, name="clip.mov", codec="prores_ks"), "yuv422p10le"
    ),
    "PQ, HEVC": in_hevc(PQ),
    "PQ, HEVC, mastering metadata": in_hevc(PQ, params=f"keyint=12:bframes=2:{MASTERED}"),
    "PQ, HEVC, ts": in_hevc(PQ, TS),
    "PQ, HEVC, 12 bit": in_hevc(PQ, replace(BASE, pixel_format="yuv420p12le")),
    "PQ, HEVC, full range": in_hevc(replace(PQ, full_range=True)),
    "PQ, HEVC, 4:4:4, odd size": in_hevc(
        PQ, replace(BASE, pixel_format="yuv444p10le", size=(101, 75))
    ),
    "PQ, HEVC, tags in mkv only": in_hevc(replace(PQ, tagged="container"), MKV),
    "PQ, HEVC, matrix untagged": in_hevc(replace(PQ, primaries=2, matrix=2)),
    "PQ, H.264, mkv": in_format(PQ, MKV),
    "PQ, VP9 in mp4, 12 bit": in_vp9(PQ, "vp9_pq.mp4"),
    "PQ, AV1, mkv": in_format(PQ, replace(AV1, name="clip.mkv")),
    "PQ, FFV1, RGB": in_format(
        replace(PQ, matrix=0), replace(MKV, b_frames=0, codec="ffv1"), "gbrp10le"
    ),
    "Dolby Vision 5, HEVC": replace(
        in_hevc(DOLBY_IPT),
        edit=partial(with_dolby_vision, profile=5, compatibility=0),
        warned=("dolby_vision_approximated",),
    ),
    "Dolby Vision 5, HEVC, no configuration": replace(
        in_hevc(DOLBY_IPT),
        edit=lambda content: content.replace(b"hev1", b"dvhe").replace(b"hvc1", b"dvh1"),
        warned=("dolby_vision_approximated",),
    ),
    "Dolby Vision 8.1, HEVC": replace(
        in_hevc(PQ), edit=partial(with_dolby_vision, profile=8, compatibility=1)
    ),
    "Dolby Vision 8.4, HEVC": replace(
        in_hevc(HLG), edit=partial(with_dolby_vision, profile=8, compatibility=4)
    ),
    "BT.2020 in SDR, HEVC": in_hevc(Grade("sdr")),
    "Display P3 in SDR, H.264": in_format(
        Grade("sdr", primaries=12), with_x264("", BASE), "yuv420p"
    ),
}
