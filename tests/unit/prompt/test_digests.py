"""A digest tells apart all that a processor may be given, and finds the same again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from videoqa_worker.prompt.digests import Digests


@dataclass
class Metadata:
    fps: float
    indices: list[int]


def make_values() -> list[Any]:
    """Values of which no two are equal, made anew at each call."""
    frame = np.arange(24, dtype=np.uint8)
    frames = [frame.reshape(2, 4, 3), frame.reshape(4, 2, 3)]
    return [
        *frames,
        frames[0].view(np.int8),
        frames[0][:, ::-1],
        torch.from_numpy(frames[0].copy()),
        torch.zeros(3, dtype=torch.bfloat16),
        torch.zeros(3, dtype=torch.float16),
        Image.fromarray(frames[0]),
        np.zeros(0, np.uint8),
        frames,
        [frames],
        [frames[:1], frames[1:]],
        frames[::-1],
        [*frames, None],
        {"images": frames, "fps": 2},
        {"images": frames, "fps": 2.0},
        {"videos": frames, "fps": 2},
        Metadata(2.0, [0, 1]),
        Metadata(2.0, [0, 2]),
        "ab",
        b"ab",
        ["a", "b"],
        1,
        True,
    ]


def test_equal_values_have_one_digest_and_no_others() -> None:
    found = [[Digests().find(value) for value in make_values()] for _ in range(2)]
    assert found[0] == found[1]
    assert None not in found[0]
    assert max(Counter(found[0]).values()) == 1


@pytest.mark.parametrize(
    "value",
    [object(), [1, object()], np.array([object()]), torch.empty(3, device="meta"), {1: {2}}],
    ids=["object", "inside", "objects", "without data", "a set"],
)
def test_what_no_digest_would_tell_has_none(value: Any) -> None:
    assert Digests().find(value) is None


def test_a_picture_is_read_once() -> None:
    digests, frame = Digests(), np.zeros((2, 2, 3), np.uint8)
    before = digests.find([frame])
    frame[:] = 1  # nobody may; it shows that it is not read again
    assert digests.find([frame]) == before
