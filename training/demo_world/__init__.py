"""The demo world: clips of coloured moving shapes, and questions about them with the right answers.

    scene = sample_scene(random.Random(7))
    write_clip(scene, "clip.mp4")
    questions(scene, random.Random(7))  # [Question(kind="color", text="Which colour?", answer="red"), ...]

The demo model was trained on it. Training, tests and benchmarks use it; the worker's wheel has the
model and four clips of it.
"""

from .clips import write_clip
from .questions import CLAIMED, Question, compare_questions, describe, questions
from .rendering import Look, render
from .sampling import sample_pair, sample_scene
from .shapes import COLORS, DIRECTIONS, SHAPES, MovingShape, Rgb, Scene, SceneKind
from .wording import vocabulary

__all__ = [
    "CLAIMED",
    "COLORS",
    "DIRECTIONS",
    "SHAPES",
    "Look",
    "MovingShape",
    "Question",
    "Rgb",
    "Scene",
    "SceneKind",
    "compare_questions",
    "describe",
    "questions",
    "render",
    "sample_pair",
    "sample_scene",
    "vocabulary",
    "write_clip",
]
