"""Models that need the worker's extra `models` run with it, and name it where it is not installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from support.extra_models import EXTRAS, write_extra
from support.torchvision import needs_torchvision, run_python

from videoqa.errors import ConfigurationError
from videoqa_worker.engine import Engine
from videoqa_worker.engine.model import torchvision
from videoqa_worker.settings import EngineConfig

INSTALL = f"pip install './worker[models]' torch=={torch.__version__.partition('+')[0]}"
PARITY = """
import json
import sys
from pathlib import Path

from videoqa_worker.engine import Engine, load_processor  # before all else, as a worker does

import torch
from PIL import Image
from support.engine import answers, ask
from support.extra_models import EXTRAS, write_extra
from support.models import clip, picture
from support.other_models import write_other
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from videoqa_worker.prompt import FrameInput, Prompter
from videoqa_worker.settings import EngineConfig


def images(count):
    return [FrameInput("image", (frame,)) for frame in clip(1, count).frames]


def by_itself(folder, question, frames):
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}] * frames + [{"type": "text", "text": question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    images = [Image.fromarray(picture) for picture in clip(1, frames).frames]
    inputs = processor(text=[prompt], images=[images], return_tensors="pt").to(torch.float32)
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    return ids[0, inputs["input_ids"].shape[1] :].tolist()


for family in EXTRAS:
    folder = write_extra(family, Path(sys.argv[1]) / family)
    with Engine(EngineConfig(model=str(folder), device="cpu", cpu_threads=1)) as engine:
        ours = [
            list(answers(engine, [ask(engine, images(frames), text)])[0].tokens)
            for text, frames in (("What is it?", 2), ("Why?", 1))
        ]
    theirs = [by_itself(folder, "What is it?", 2), by_itself(folder, "Why?", 1)]
    print(json.dumps([family, ours, theirs]))

# Pixtral needs nothing of torchvision, but transformers has its processor only with it.
folder = write_other("pixtral", Path(sys.argv[1]) / "pixtral")
upstream = AutoProcessor.from_pretrained(folder)
assert type(upstream).__module__ == "transformers.models.pixtral.processing_pixtral"
config = AutoConfig.from_pretrained(folder)
prompter = Prompter(load_processor(str(folder), config, "reference"), config)
ours, theirs = [], []
for sizes in ([(48, 64)], [(200, 37), (16, 16)], [(20, 90), (64, 64), (33, 90)]):
    media = [picture(n, height=height, width=width) for n, (height, width) in enumerate(sizes)]
    text = "See " + "".join(f"<image> number {n}, " for n in range(len(sizes)))
    content = [{"type": "text", "text": "See "}]
    for n in range(len(sizes)):
        content += [{"type": "image"}, {"type": "text", "text": f" number {n}, "}]
    prompt = upstream.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    pictures = [Image.fromarray(item.frames[0]) for item in media]
    expected = upstream(
        text=[prompt], images=[pictures], return_tensors="pt", add_special_tokens=False
    )
    inputs = prompter.build(media, text)
    ours.append(inputs.input_ids[0].tolist() + inputs.images["image_sizes"].flatten().tolist())
    theirs.append(
        expected["input_ids"][0].tolist()
        + torch.as_tensor(expected["image_sizes"]).flatten().tolist()
    )
    difference = (inputs.images["pixel_values"] - expected["pixel_values"]).abs().mean()
    assert difference < 0.01, difference
print(json.dumps(["pixtral", ours, theirs]))
"""


@needs_torchvision
def test_with_the_extra_answers_are_those_of_processor_and_generate(tmp_path: Path) -> None:
    found = {
        family: both for family, *both in map(json.loads, run_python("-c", PARITY, str(tmp_path)))
    }
    assert sorted(found) == sorted([*EXTRAS, "pixtral"])
    for family, (ours, theirs) in found.items():
        assert ours == theirs, family
        assert ours[0] != ours[1], family
        assert all(len(tokens) > 1 for tokens in ours), family


@pytest.mark.parametrize("family", sorted(EXTRAS.keys() - {"perception_lm"}))
def test_without_the_extra_its_name_is_said(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PerceptionLM is left out, since its checkpoint cannot be written without the extra either."""
    lacking = "torchvision"
    if family == "smolvlm":
        lacking = "num2words"
        monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
        hide(monkeypatch, "num2words")
    write_extra(family, tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        Engine(EngineConfig(model=str(tmp_path), device="cpu")).start()
    assert f"needs {lacking}, which is not installed: {INSTALL}" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Makes a package one that is not installed: neither found nor imported."""
    monkeypatch.setitem(sys.modules, name, None)


def test_a_torchvision_that_does_not_load_is_hidden_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyPI's wheel for another torch fails in `import torchvision`, which transformers does for every model."""
    package = tmp_path / "packages" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('libtorch_cuda.so: no such file')")
    monkeypatch.syspath_prepend(package.parent)
    hide(monkeypatch, "torchvision")  # restores what is there now
    del sys.modules["torchvision"]
    monkeypatch.setattr(torchvision, "_state", {})
    torchvision.make_importable()
    assert importlib.util.find_spec("torchvision") is None, "transformers would import it"
    with pytest.raises(ConfigurationError) as caught:
        Engine(EngineConfig(model=str(write_extra("lfm2_vl", tmp_path)), device="cpu")).start()
    for text in (
        "torchvision, which is installed, but does not load here (ImportError: lib",
        INSTALL,
    ):
        assert text in str(caught.value)
