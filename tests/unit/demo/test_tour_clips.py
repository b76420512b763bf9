"""The four bundled clips of `videoqa demo` show what the tour says they show."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from support.scenes import TOUR_SCENES, describe, render

from videoqa_worker.demo.tour import CLIPS, TRUTHS


def test_the_truth_beside_each_clip_is_that_of_its_scene() -> None:
    assert {name: describe(scene) for name, scene in TOUR_SCENES.items()} == TRUTHS
    assert {path.name for path in CLIPS.iterdir()} == set(TRUTHS)


@pytest.mark.parametrize("name", TRUTHS)
def test_each_clip_shows_its_scene(name: str) -> None:
    with av.open(str(CLIPS / name)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    drawn = render([TOUR_SCENES[name]], [0.0, 0.3, 0.6, 0.9], (320, 240))[0]
    for n, picture in zip((0, 30, 60, 90), drawn, strict=True):
        assert np.abs(frames[n].astype(int) - picture).mean() < 3, n
    assert len(frames) == 100


def test_the_clips_are_small_enough_to_ship() -> None:
    assert sum(Path(CLIPS, name).stat().st_size for name in TRUTHS) < 40_000
