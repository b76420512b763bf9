"""Clips of coloured shapes with known contents: the demo world that the demo model was trained on."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "training"))

from demo_world import (
    CLAIMED,
    COLORS,
    Look,
    Scene,
    compare_questions,
    describe,
    questions,
    render,
    sample_pair,
    sample_scene,
    write_clip,
)
from demo_world.tour_clips import SCENES as TOUR_SCENES

__all__ = [
    "CLAIMED",
    "COLORS",
    "TOUR_SCENES",
    "Look",
    "Scene",
    "compare_questions",
    "describe",
    "questions",
    "render",
    "sample_pair",
    "sample_scene",
    "write_clip",
]
