"""Questions about scenes in many wordings, each with the one right answer.

The kinds named here are the kinds that the demo model's card reports. Knows nothing of pixels or
models.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from .shapes import COLORS, SHAPES, MovingShape, Scene
from .wording import ask

__all__ = ["CLAIMED", "Question", "compare_questions", "describe", "questions"]

#: Kinds that the bundled model answers with at least 95% exactly right texts; see its card.
CLAIMED = frozenset(
    (
        "count",
        "exists",
        "color",
        "shape",
        "direction",
        "objects",
        "moving",
        "describe",
        "start",
        "end",
        "yes_no",
        "first",
        "last",
        "colors_in_turn",
        "objects_in_turn",
        "describe_in_turn",
        "colors_at_once",
        "objects_at_once",
        "moving_at_once",
        "describe_at_once",
        "named_color",
        "named_shape",
        "named_direction",
        "which_video",
        "compare",
        "same_color",
        "same_shape",
        "same_direction",
    )
)

_NUMBERS = ("no", "one", "two", "three")
_PALETTE = list(COLORS)


@dataclass(frozen=True)
class Question:
    """A question, its right answer, and the kind by which it is counted."""

    kind: str
    text: str
    answer: str


def describe(scene: Scene) -> str:
    """Returns the true content of the clip, for example "a red circle moves right"."""
    joint = " then " if scene.kind == "sequence" else " and "
    return joint.join(f"{shape.name} {shape.motion}" for shape in _order_shapes(scene))


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    """Returns all questions about the scene, each in a wording drawn by `rng`."""
    makers = {"single": _ask_about_one, "sequence": _ask_about_sequence, "group": _ask_about_group}
    count = _NUMBERS[len(scene.objects)]
    found = [Question("count", ask("count", rng), count)]
    found += makers[scene.kind](scene, rng)
    found.append(_ask_existence(scene, rng))
    return found


def compare_questions(first: Scene, second: Scene, rng: random.Random) -> list[Question]:
    """Returns all questions about two clips of one shape each, shown one after the other."""
    a, b = first.objects[0], second.objects[0]
    pairs = (
        ("same_color", a.color, b.color),
        ("same_shape", f"a {a.shape}", f"a {b.shape}"),
        ("same_direction", a.motion, b.motion),
    )
    found = [
        Question(
            kind,
            ask(kind, rng),
            f"the first {_verb(kind, x)} and the second {_verb(kind, y)}, {_verdict(x, y)}",
        )
        for kind, x, y in pairs
    ]
    for which, shape in (("first", a), ("second", b)):
        found.append(
            Question(
                "which_video", ask("which_video", rng, which=which), f"{shape.name} {shape.motion}"
            )
        )
    both = f"the first shows {a.name} that {a.motion} and the second shows {b.name} that {b.motion}"
    found.append(Question("compare", ask("compare", rng), both))
    return found


def _verb(kind: str, what: str) -> str:
    return what if kind == "same_direction" else f"is {what}"


def _verdict(x: str, y: str) -> str:
    return "so yes" if x == y else "so no"


def _ask_about_one(scene: Scene, rng: random.Random) -> Iterator[Question]:
    shape = scene.objects[0]
    noun = rng.choice((shape.shape, "{thing}"))
    yield Question("color", ask("color", rng, noun=noun), shape.color)
    yield Question("color", ask("colors", rng), shape.color)
    yield Question(
        "shape",
        ask("shape", rng, noun=rng.choice((f"{shape.color} {{thing}}", "{thing}"))),
        shape.shape,
    )
    yield Question("direction", ask("direction", rng, noun=noun), _direction(shape))
    yield Question("objects", ask("objects", rng), shape.name)
    yield Question("moving", ask("moving", rng), shape.name if shape.moves else "nothing")
    yield Question("describe", ask("describe", rng), describe(scene))
    yield _ask_yes_or_no(shape, noun, rng)
    for kind, u_seen, u_true in (("start", 0.0, 0.0), ("end", 0.75, 1.0)):
        side = _side(shape, u_true)
        if side and side == _side(shape, u_seen):
            yield Question(kind, ask(kind, rng, noun=noun), side)


def _ask_yes_or_no(shape: MovingShape, noun: str, rng: random.Random) -> Question:
    """Returns a yes/no question; half of them have the answer yes."""
    traits = (
        [shape.color, *COLORS],
        [f"a {shape.shape}", *(f"a {name}" for name in SHAPES)],
        ["moving" if shape.moves else "still", "moving", "still"],
        [
            f"moving {shape.direction}",
            *(f"moving {way}" for way in ("left", "right", "up", "down")),
        ],
    )
    true, *others = rng.choice(traits if shape.moves else traits[:3])
    said = true if rng.random() < 0.5 else rng.choice(others)
    text = ask("yes_no", rng, noun=noun, which=said)
    return Question("yes_no", text, "yes" if said == true else "no")


def _ask_about_sequence(scene: Scene, rng: random.Random) -> Iterator[Question]:
    first, last = scene.objects
    yield Question("first", ask("first", rng), first.name)
    yield Question("last", ask("last", rng), last.name)
    yield Question("objects_in_turn", ask("objects", rng), f"{first.name} then {last.name}")
    yield Question("describe_in_turn", ask("describe", rng), describe(scene))
    yield Question(
        "colors_in_turn",
        ask(rng.choice(("color", "colors")), rng),
        f"{first.color} then {last.color}",
    )
    yield Question("moving_in_turn", ask("moving", rng), _movers(scene))
    yield from _ask_by_name(scene, rng)


def _ask_about_group(scene: Scene, rng: random.Random) -> Iterator[Question]:
    ordered = _order_shapes(scene)
    yield Question(
        "objects_at_once", ask("objects", rng), _join_names([shape.name for shape in ordered])
    )
    yield Question("describe_at_once", ask("describe", rng), describe(scene))
    yield Question(
        "colors_at_once", ask("colors", rng), _join_names([shape.color for shape in ordered])
    )
    yield Question("moving_at_once", ask("moving", rng), _movers(scene))
    yield from _ask_by_name(scene, rng)


def _ask_by_name(scene: Scene, rng: random.Random) -> Iterator[Question]:
    """Yields questions about one shape of several, named by a trait that no other has."""
    by_color = _only_ones(scene, "color")
    if by_color:
        shape = rng.choice(by_color)
        yield Question(
            "named_shape", ask("shape", rng, name=f"{shape.color} {{thing}}"), shape.shape
        )
        shape = rng.choice(by_color)
        name = rng.choice((f"{shape.color} {shape.shape}", f"{shape.color} {{thing}}"))
        yield Question("named_direction", ask("direction", rng, name=name), _direction(shape))
    by_shape = _only_ones(scene, "shape")
    if by_shape:
        shape = rng.choice(by_shape)
        yield Question("named_color", ask("color", rng, name=shape.shape), shape.color)


def _only_ones(scene: Scene, trait: str) -> list[MovingShape]:
    """Returns the shapes whose colour, or shape, no other has."""
    values = [getattr(shape, trait) for shape in scene.objects]
    return [shape for shape in scene.objects if values.count(getattr(shape, trait)) == 1]


def _movers(scene: Scene) -> str:
    names = [shape.name for shape in _order_shapes(scene) if shape.moves]
    if not names:
        return "nothing"
    return " then ".join(names) if scene.kind == "sequence" else _join_names(names)


def _ask_existence(scene: Scene, rng: random.Random) -> Question:
    """Returns a question about the existence of a shape; half of them name one that is there."""
    there = rng.choice(scene.objects)
    name = (there.color, there.shape)
    if rng.random() < 0.5:
        name = rng.choice((there.color, *COLORS)), rng.choice(SHAPES)
    found = any((shape.color, shape.shape) == name for shape in scene.objects)
    return Question("exists", ask("exists", rng, name=" ".join(name)), "yes" if found else "no")


def _order_shapes(scene: Scene) -> tuple[MovingShape, ...]:
    """Returns the shapes in order of time; those seen at once in the palette's order, red first."""
    return tuple(
        sorted(scene.objects, key=lambda shape: (shape.appears, _PALETTE.index(shape.color)))
    )


def _join_names(names: list[str]) -> str:
    """Joins names, for example "red, green and blue"."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def _direction(shape: MovingShape) -> str:
    return shape.direction if shape.moves else "it stays still"


def _side(shape: MovingShape, u: float) -> str | None:
    """Returns the side it is on, along its axis; None near the middle, or if it stays still."""
    if not shape.moves:
        return None
    across = shape.start[1] == shape.end[1]
    at = shape.position(u)[0 if across else 1]
    if 0.42 < at < 0.58:
        return None
    low, high = ("on the left", "on the right") if across else ("at the top", "at the bottom")
    return high if at > 0.5 else low
