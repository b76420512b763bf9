"""Clips of `videoqa demo`: draws them anew into the worker's package.

python training/demo_world/tour_clips.py worker/videoqa_worker/demo/clips
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from demo_world import Scene, write_clip

__all__ = ["SCENES", "write_clips"]

SCENES = {
    "circle.mp4": Scene.single("red", "circle", "right"),
    "square.mp4": Scene.single("blue", "square", "up"),
    "triangle.mp4": Scene.single("green", "triangle", "left"),
    "parade.mp4": Scene.sequence(("yellow", "square", "down"), ("purple", "circle", "left")),
}


def write_clips(folder: Path) -> None:
    """Writes all clips; the crf keeps each below 10 kB, and the shapes are as sharp to the model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scene in SCENES.items():
        write_clip(scene, folder / name, crf=30)


if __name__ == "__main__":
    write_clips(Path(sys.argv[1]))
