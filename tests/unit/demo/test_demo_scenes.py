"""The demo world: what is drawn, asked and filmed agrees with the scene."""

from __future__ import annotations

import random
from pathlib import Path

import av
import numpy as np
import pytest
from support.scenes import (
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

KINDS = ("single", "sequence", "group")


def color_at(picture: np.ndarray, x: float, y: float) -> str:
    """The palette's colour nearest to the pixel at (x, y), 0..1."""
    height, width, _ = picture.shape
    pixel = picture[min(int(y * height), height - 1), min(int(x * width), width - 1)].astype(int)
    return min(COLORS, key=lambda name: int(np.abs(pixel - COLORS[name]).sum()))


@pytest.mark.parametrize("kind", KINDS)
def test_each_shape_has_its_colour_at_its_place_while_it_is_seen(kind: str) -> None:
    rng = random.Random(1)
    for _ in range(10):
        scene = sample_scene(rng, kind)
        times = [0.0, 0.3, 0.6, 0.9]
        pictures = render([scene], times, (96, 72))[0]
        for u, picture in zip(times, pictures, strict=True):
            for thing in scene.objects:
                if thing.appears <= u < thing.vanishes:
                    assert color_at(picture, *thing.position(u)) == thing.color


def test_a_shape_is_not_drawn_before_it_appears_or_after_it_goes() -> None:
    scene = Scene.sequence(("red", "circle", "still"), ("blue", "square", "still"))

    early, late = render([scene], [0.1, 0.9], (64, 64))[0]

    assert color_at(early, 0.5, 0.5) == "red"
    assert color_at(late, 0.5, 0.5) == "blue"


def test_rendering_many_scenes_at_once_gives_the_pixels_of_each_alone() -> None:
    rng = random.Random(2)
    scenes = [sample_scene(rng) for _ in range(6)]

    together = render(scenes, [0.0, 0.5], (48, 48))

    assert together.shape == (6, 2, 48, 48, 3)
    assert together.dtype == np.uint8
    for scene, pictures in zip(scenes, together, strict=True):
        np.testing.assert_array_equal(render([scene], [0.0, 0.5], (48, 48))[0], pictures)


def test_noise_is_decided_by_its_seed() -> None:
    scene, look = Scene.single("red", "circle", "up"), Look(noise=5, color_jitter=5, gradient=5)

    one, same, other = (render([scene], [0.5], (48, 48), look=look, seed=s) for s in (1, 1, 2))

    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("direction", "axis", "sign"), [("right", 0, 1), ("left", 0, -1), ("down", 1, 1), ("up", 1, -1)]
)
def test_a_shape_goes_where_its_direction_says(direction: str, axis: int, sign: int) -> None:
    thing = Scene.single(color="red", shape="circle", direction=direction).objects[0]

    step = np.subtract(thing.position(1.0), thing.position(0.0))

    assert step[axis] * sign > 0.3
    assert step[1 - axis] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_shapes_stay_wholly_in_the_picture(kind: str) -> None:
    rng = random.Random(3)
    for _ in range(200):
        for thing in sample_scene(rng, kind).objects:
            for u in (0.0, 1.0):
                assert all(thing.radius < at < 1 - thing.radius for at in thing.position(u))


def test_the_same_seed_draws_the_same_scene_and_questions() -> None:
    def drawn() -> object:
        rng = random.Random(5)
        scene = sample_scene(rng)
        return scene, questions(scene, rng)

    assert drawn() == drawn()


def test_answers_about_one_shape_name_its_traits() -> None:
    scene = Scene.single(color="green", shape="triangle", direction="left")

    answers = {asked.kind: asked.answer for asked in questions(scene, random.Random(0))}

    assert answers["color"] == "green"
    assert answers["shape"] == "triangle"
    assert answers["direction"] == "left"
    assert answers["count"] == "one"
    assert answers["objects"] == answers["moving"] == "a green triangle"
    assert answers["start"] == "on the right"
    assert answers["end"] == "on the left"
    assert answers["describe"] == describe(scene) == "a green triangle moves left"


def test_nothing_is_said_to_move_in_a_clip_that_stands_still() -> None:
    scene = Scene.single(color="white", shape="square", direction="still")

    answers = {asked.kind: asked.answer for asked in questions(scene, random.Random(0))}

    assert answers["moving"] == "nothing"
    assert answers["direction"] == "it stays still"
    assert "start" not in answers


def test_a_sequence_is_told_in_order_of_time_and_a_group_in_order_of_the_palette() -> None:
    members = ("white", "circle", "right"), ("red", "square", "left")

    assert describe(Scene.sequence(*members)) == (
        "a white circle moves right then a red square moves left"
    )
    assert describe(Scene.group(*members)) == (
        "a red square moves left and a white circle moves right"
    )


def test_a_question_about_one_shape_of_several_fits_no_other() -> None:
    rng = random.Random(7)
    for _ in range(200):
        scene = sample_scene(rng, rng.choice(("sequence", "group")))
        for asked in questions(scene, rng):
            if asked.kind == "named_color":
                named = [thing for thing in scene.objects if thing.shape in asked.text]
                assert [thing.color for thing in named] == [asked.answer]


def test_comparing_two_clips_says_yes_exactly_when_they_agree() -> None:
    rng = random.Random(8)
    for _ in range(100):
        first, second = sample_pair(rng)
        answers = {asked.kind: asked.answer for asked in compare_questions(first, second, rng)}
        same = first.objects[0].color == second.objects[0].color
        assert answers["same_color"].endswith("so yes" if same else "so no")


def test_questions_have_no_unfilled_slots() -> None:
    rng = random.Random(9)
    for _ in range(300):
        asked = questions(sample_scene(rng), rng) + compare_questions(*sample_pair(rng), rng)
        assert not [one.text for one in asked if "{" in one.text + one.answer]


def test_a_clip_holds_the_frames_that_were_drawn(tmp_path: Path) -> None:
    scene = Scene.group(("red", "circle", "right"), ("blue", "square", "left"))

    path = write_clip(scene, tmp_path / "a.mp4", size_px=(160, 120), fps=10, duration_s=2.0)

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.has_b_frames
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 20
    for index in (0, 10, 19):
        for thing in scene.objects:
            assert color_at(frames[index], *thing.position(index / 20)) == thing.color


def test_the_same_scene_is_filmed_to_the_same_pictures(tmp_path: Path) -> None:
    """Not to the same bytes: x264 chose other quantisers once, on a busy machine."""
    scene = sample_scene(random.Random(3), "single")
    one, two, other = (
        _pictures(
            write_clip(scene, tmp_path / name, size_px=(96, 96), duration_s=1, noise=4, seed=seed)
        )
        for name, seed in (("1.mp4", 1), ("2.mp4", 1), ("3.mp4", 2))
    )
    assert one.shape == two.shape
    assert np.abs(one - two).mean() < np.abs(one - other).mean() / 2 + 0.5


def _pictures(path: Path) -> np.ndarray:
    """float32[T, H, W, 3], RGB, 0 to 255."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).astype(np.float32)


def test_the_index_of_a_clip_stands_before_its_pictures(tmp_path: Path) -> None:
    path = write_clip(Scene.single("red", "circle", "up"), tmp_path / "a.mp4", duration_s=0.4)

    data = path.read_bytes()

    assert data.index(b"moov") < data.index(b"mdat")


def test_an_odd_size_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected even numbers"):
        write_clip(Scene.single("red", "circle", "up"), tmp_path / "a.mp4", size_px=(97, 96))


def test_unknown_traits_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'pink', expected one of red"):
        Scene.single("pink", "circle", "up")
    with pytest.raises(ValueError, match="'sideways', expected one of right"):
        Scene.single("red", "circle", "sideways")


def test_a_group_whose_paths_would_cross_is_refused() -> None:
    with pytest.raises(ValueError, match="expected all left/right, or all up/down"):
        Scene.group(("red", "circle", "right"), ("blue", "square", "up"))
    with pytest.raises(ValueError, match="each of another colour"):
        Scene.group(("red", "circle", "right"), ("red", "square", "left"))
