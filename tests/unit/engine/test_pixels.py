"""Fast pixels are the reference's, to less than one step of a byte, for every family.

The reference is the checkpoint's own processor on PIL pictures. Differences are given in
steps of 1/255 of the range 0 to 1, that is, before normalisation.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import FAMILIES, picture
from transformers import AutoConfig, SiglipImageProcessorPil

from videoqa.errors import UnsupportedInput
from videoqa_worker.engine import load_processor
from videoqa_worker.engine.model.features_apart import JOINED_TYPES
from videoqa_worker.engine.model.processing import fast_resize as engine_pixels
from videoqa_worker.engine.model.processing.processor import PROCESSORS
from videoqa_worker.engine.model.processing.processor_class import find_processor_class
from videoqa_worker.prompt import FrameInput, ModelInputs, Prompter

FULL_SIZE = {
    "interleave": (42, 384),
    "next": (28, 336),
    "next_video": (56, 336),
    "onevision": (42, 384),
    "video_llava": (28, 224),
}
"""Edge of the tiny checkpoint's pictures, and of the family's on the hub."""

CLIP = {
    "size": {"shortest_edge": 336},
    "crop_size": {"height": 336, "width": 336},
    "do_center_crop": True,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "llava with CLIP": ("interleave", {"image_processor_type": "CLIPImageProcessor", **CLIP}),
    "llava padded to a square": (
        "interleave",
        {"image_processor_type": "LlavaImageProcessor", "do_pad": True, **CLIP},
    ),
    "bilinear": ("interleave", {"resample": 2}),
    "not normalised": ("interleave", {"do_normalize": False}),
    "another range": ("interleave", {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3}),
}


@functools.cache
def scenery(height: int, width: int) -> np.ndarray:
    """Soft shades with hard edges, different in each channel, and a little grain."""
    y, x = np.mgrid[0:height, 0:width]
    shades = [127 + 120 * np.sin(x / (40 + 9 * c) + y / (31 + 5 * c)) for c in range(3)]
    scene = np.stack(shades, axis=-1)
    scene[height // 4 : height // 2, width // 3 : width // 2] = (250, 10, 90)
    grain = np.random.default_rng(1).normal(0, 4, scene.shape)
    return (scene + grain).clip(0, 255).astype(np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)


def checks(height: int, width: int) -> np.ndarray:
    """Black and white, pixel by pixel: the most that a filter can ring."""
    y, x = np.mgrid[0:height, 0:width]
    return np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, axis=-1)


def ramp(height: int, width: int) -> np.ndarray:
    line = np.linspace(0, 255, width).astype(np.uint8)
    return np.broadcast_to(line[None, :, None], (height, width, 3)).copy()


PICTURES = {
    "1080p": lambda: scenery(1080, 1920),
    "portrait": lambda: scenery(1280, 720),
    "odd": lambda: scenery(405, 719),
    "grey": lambda: np.repeat(scenery(480, 640)[..., :1], 3, axis=-1),
    "ramp": lambda: ramp(576, 1024),
    "noise": lambda: noise(360, 480),
    "checks": lambda: checks(333, 500),
    "tiny": lambda: noise(12, 16),
    "one row": lambda: noise(1, 64),
    "one column": lambda: noise(64, 1),
    "one pixel": lambda: noise(1, 1),
    "as large as the model's": lambda: noise(384, 384),
}


SIGLIP_384 = (
    engine_pixels._make_fast(SiglipImageProcessorPil(size={"height": 384, "width": 384})),
    SiglipImageProcessorPil(size={"height": 384, "width": 384}),
)


def changed(folder: Path, name: str, **changes: Any) -> None:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def scaled(value: Any, tiny: int, full: int) -> Any:
    """Sizes of a configuration, as many times larger."""
    if isinstance(value, dict):
        return {key: scaled(one, tiny, full) for key, one in value.items()}
    if isinstance(value, list):
        return [scaled(one, tiny, full) for one in value]
    return value * full // tiny


@pytest.fixture(scope="session")
def full_size(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A folder with a variant's processor as it is on the hub; the model in it stays tiny."""
    made: dict[str, Path] = {}

    def of(variant: str) -> Path:
        if variant not in made:
            family, changes = VARIANTS[variant]
            folder = tmp_path_factory.mktemp("full") / family
            shutil.copytree(checkpoint(family), folder)
            for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
                if (folder / name).exists():
                    stated = json.loads((folder / name).read_text())
                    sizes = {"size", "crop_size", "image_grid_pinpoints"} & stated.keys()
                    larger = {k: scaled(stated[k], *FULL_SIZE[family]) for k in sizes}
                    changed(folder, name, **larger | changes)
            if family == "onevision":
                changed(folder, "processor_config.json", num_image_tokens=27**2)
            made[variant] = folder
        return made[variant]

    return of


def prompter(folder: Path, pixels: Any) -> Prompter:
    config = AutoConfig.from_pretrained(str(folder))
    config.get_text_config().max_position_embeddings = 10**7
    return Prompter(load_processor(str(folder), config, pixels), config)


@pytest.fixture(scope="session")
def both(full_size: Callable[[str], Path]) -> Callable[[str], tuple[Prompter, Prompter]]:
    """The fast and the reference prompter of a variant."""
    made: dict[str, tuple[Prompter, Prompter]] = {}

    def of(variant: str) -> tuple[Prompter, Prompter]:
        if variant not in made:
            folder = full_size(variant)
            made[variant] = prompter(folder, "fast"), prompter(folder, "reference")
        return made[variant]

    return of


def floats(inputs: ModelInputs) -> dict[str, torch.Tensor]:
    """Returns the model's input by kind, on the CPU in float32."""
    given: dict[str, torch.Tensor] = {}
    if inputs.videos:
        (given["video"],) = inputs.videos
    if "pixel_values" in inputs.images:
        given["image"] = inputs.images["pixel_values"]
    cpu = torch.device("cpu")
    return {
        kind: inputs.normalisations[kind](value, cpu, torch.float32)
        if kind in inputs.normalisations
        else value
        for kind, value in given.items()
    }


def steps_apart(fast: ModelInputs, reference: ModelInputs) -> dict[str, torch.Tensor]:
    """|fast - reference| by kind, float32[..., 3, H, W], in steps of 1/255 of the range."""
    ours, theirs = floats(fast), floats(reference)
    assert ours.keys() == theirs.keys()
    apart = {}
    for kind, value in ours.items():
        assert value.shape == theirs[kind].shape
        assert value.dtype == theirs[kind].dtype == torch.float32
        how = fast.normalisations[kind]
        scale = torch.tensor(how.std)[:, None, None] * how.divisor
        apart[kind] = (value - theirs[kind]).abs() * scale
    return apart


def channel_means(apart: torch.Tensor) -> torch.Tensor:
    return apart.movedim(-3, 0).flatten(1).mean(dim=1)


def test_every_family_that_is_served_is_compared(checkpoint: Callable[[str], Path]) -> None:
    compared = {family: str(checkpoint(family)) for family in FAMILIES}
    configs = {family: AutoConfig.from_pretrained(folder) for family, folder in compared.items()}
    classes = {find_processor_class(compared[name], configs[name], {}).__name__ for name in configs}
    assert classes == set(PROCESSORS)
    assert {config.model_type for config in configs.values()} == JOINED_TYPES


@pytest.mark.parametrize("variant", VARIANTS)
def test_fast_pixels_are_within_a_step_of_the_reference(
    variant: str, both: Callable[[str], tuple[Prompter, Prompter]]
) -> None:
    fast, reference = both(variant)
    assert set(fast.pixels.values()) == {"fast"}
    assert set(reference.pixels.values()) == {"reference"}
    print(f"\n{variant}: mean of the worst channel and largest difference, in steps of 1/255")
    for name, make in PICTURES.items():
        if variant not in FAMILIES and name not in ("1080p", "portrait", "noise", "tiny"):
            continue
        frame = make()
        media_kinds = ("image", "video") if fast.takes_videos else ("image",)
        for media in (FrameInput(kind, (frame,)) for kind in media_kinds):
            ours, theirs = (p.build([media], "What?") for p in (fast, reference))
            assert torch.equal(ours.input_ids, theirs.input_ids)
            assert ours.images.keys() == theirs.images.keys()
            for field in ours.images.keys() - {"pixel_values"}:
                assert torch.equal(ours.images[field], theirs.images[field])
            for kind, apart in steps_apart(ours, theirs).items():
                worst = channel_means(apart).max().item()
                print(f"  {name:24} {kind:5} {worst:7.4f} {apart.max():5.2f}")
                assert worst <= 1


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 500), width=st.integers(1, 500))
def test_noise_of_any_size_is_within_a_step_of_the_reference(height: int, width: int) -> None:
    fast, reference = SIGLIP_384
    frame = noise(height, width).transpose(2, 0, 1)
    ours = torch.as_tensor(fast.resize(frame, fast.size, fast.resample)).float()
    theirs = torch.as_tensor(reference.resize(frame, fast.size, fast.resample)).float()
    assert channel_means((ours - theirs).abs()).max() <= 1


# --- what the fast path does not take on


def prompter_with(folder: Path, tmp_path: Path, **changes: Any) -> Prompter:
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    changed(copy, "preprocessor_config.json", **changes)
    return prompter(copy, "fast")


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"resample": 0}, "no kernel for resample"),
        ({"resample": 1}, "no kernel for resample"),
        ({"resample": 5}, "no kernel for resample"),
        ({"do_pad": True, "pad_size": {"height": 400, "width": 400}}, "pads with zeros after"),
        ({"size": {"shortest_edge": 40, "longest_edge": 60}}, "neither height and width nor"),
        ({"image_processor_type": "ViTImageProcessor"}, "not one of the classes"),
    ],
)
def test_what_the_fast_path_does_not_know_is_left_to_the_reference(
    changes: dict[str, Any],
    because: str,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger=engine_pixels.__name__):
        changed_one = prompter_with(checkpoint("interleave"), tmp_path, **changes)
    assert changed_one.pixels == {"image": "reference"}
    assert because in caplog.text
    inputs = changed_one.build([picture(1)], "What?")
    assert inputs.normalisations == {}
    assert inputs.images["pixel_values"].dtype == torch.float32


def test_a_part_whose_arithmetic_is_its_own_is_left_to_the_reference(
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A later transformers may compute something else: every value of a byte is tried."""

    def brighter(self: Any, image: np.ndarray, scale: float, **_: Any) -> np.ndarray:
        return (image * scale + (image == 255) * 0.01).astype(np.float32)

    monkeypatch.setattr(engine_pixels.SiglipImageProcessorPil, "rescale", brighter)
    assert prompter(checkpoint("interleave"), "fast").pixels == {"image": "reference"}
    assert "not (pixels / divisor - mean) / std" in caplog.text


def test_one_kind_of_media_may_be_fast_and_the_other_not(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    mixed = prompter_with(checkpoint("onevision"), tmp_path, resample=1)
    assert mixed.pixels == {"image": "reference", "video": "fast"}
    inputs = mixed.build([picture(1), FrameInput("video", (noise(40, 60),))], "What?")
    assert inputs.images["pixel_values"].dtype == torch.float32
    assert inputs.videos[0].dtype == torch.uint8


# --- memory and threads


def test_a_read_only_picture_is_neither_copied_nor_changed(
    both: Callable[[str], tuple[Prompter, Prompter]], tmp_path: Path, recwarn: Any
) -> None:
    """Frames may be views into a memory map of the decoder's."""
    frame = scenery(300, 400)
    frame.tofile(tmp_path / "frames")
    mapped = np.memmap(tmp_path / "frames", np.uint8, "r", shape=frame.shape)
    tensor = engine_pixels._as_tensor(mapped.transpose(2, 0, 1))
    assert tensor.data_ptr() == mapped.ctypes.data
    fast, _ = both("interleave")
    of_map, of_copy = (fast.build([FrameInput("image", (p,))], "What?") for p in (mapped, frame))
    assert torch.equal(of_map.images["pixel_values"], of_copy.images["pixel_values"])
    assert np.array_equal(mapped, frame)
    assert not [w for w in recwarn if "writable" in str(w.message)]


def test_memory_that_numpy_does_not_lend_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> Any:
        raise BufferError("Cannot export readonly array")

    monkeypatch.setattr(torch.utils.dlpack, "from_dlpack", refuse)
    frame = noise(5, 7)
    frame.flags.writeable = False
    tensor = engine_pixels._as_tensor(frame)
    assert np.array_equal(tensor.numpy(), frame)


@pytest.mark.parametrize("variant", ["llava with CLIP", "next_video", "video_llava"])
def test_a_picture_that_would_become_a_strip_of_gigabytes_is_refused(
    variant: str, both: Callable[[str], tuple[Prompter, Prompter]]
) -> None:
    fast, _ = both(variant)
    media = FrameInput("video", (np.zeros((16_000, 1, 3), np.uint8),))
    with pytest.raises(UnsupportedInput, match="1 x 16000, which the model's processor would make"):
        fast.build([media], "What?")


COUNT_THREADS = """
import sys, threading
import numpy as np, psutil, torch
from test_pixels import prompter, scenery
from videoqa_worker.prompt import FrameInput
torch.set_num_threads(4)
fast = prompter(sys.argv[1], "fast")
frames = tuple(scenery(720, 1280) for _ in range(4))
fast.build((), "What?")  # the tokenizer's own threads, once a process
before = psutil.Process().num_threads()
seen = []
def build():
    fast.build([FrameInput("image", frames[:1]), FrameInput("video", frames)], "What?")
    seen.append(psutil.Process().num_threads())
thread = threading.Thread(target=build)
thread.start(); thread.join()
print(seen[0] - before)
"""


def test_preprocessing_stays_on_the_thread_that_asks_for_it(
    full_size: Callable[[str], Path],
) -> None:
    """Many pipeline threads prepare frames beside the engine: none may bring three more."""
    ran = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS, str(full_size("next_video"))],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ran.stdout.split()[-1]) == 1
