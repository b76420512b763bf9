"""A LoRA adapter is merged at the start: answers are those of peft's unmerged model, or its fault is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from support.engine import answers, ask
from support.models import clip
from transformers import AutoConfig, AutoModelForImageTextToText

from videoqa.errors import ConfigurationError
from videoqa_worker.engine import Engine, inspect_checkpoint, load_processor
from videoqa_worker.prompt import Prompter
from videoqa_worker.settings import EngineConfig, WorkerSettings

KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "rsLoRA, all layers": {"use_rslora": True, "target_modules": "all-linear"},
    "DoRA": {"use_dora": True},
    "whole modules": {"modules_to_save": ["linear_2"], "bias": "lora_only"},
    "ranks and alphas": {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"v_proj": 16}},
}


@pytest.fixture(scope="module")
def base(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("interleave")


@pytest.fixture(scope="module")
def plain(base: Path) -> tuple[list[int], str]:
    """The answer without an adapter, and the model's revision."""
    return answer(settings(base, None, pixels="reference"))


def load(base: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32).eval()


def write_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    modules = ["q_proj", "v_proj", "down_proj"]
    config = LoraConfig(**{"r": 8, "lora_alpha": 64, "target_modules": modules} | settings)
    torch.manual_seed(3)
    model = get_peft_model(load(base), config)
    for weight in model.parameters():
        if weight.requires_grad and weight.ndim >= 2:
            torch.nn.init.normal_(weight, std=0.15)
    model.save_pretrained(folder)
    return folder


def settings(base: Path, adapter: Path | str | None, **more: Any) -> EngineConfig:
    named = None if adapter is None else str(adapter)
    return EngineConfig(model=str(base), adapter=named, device="cpu", cpu_threads=1, **more)


def answer(config: EngineConfig) -> tuple[list[int], str]:
    """Returns an engine's answer and its model's revision."""
    with Engine(config) as engine:
        found = answers(engine, [ask(engine, [clip(1, 2)], "What is it?")])[0]
        return list(found.tokens), engine.revision


def answer_unmerged(base: Path, adapter: Path) -> list[int]:
    model: Any = PeftModel.from_pretrained(load(base), str(adapter)).eval()
    processor = load_processor(str(base), AutoConfig.from_pretrained(base), "reference")
    inputs = Prompter(processor, model.config).build([clip(1, 2)], "What is it?")
    with torch.inference_mode():
        ids = model.generate(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            **inputs.images,
            max_new_tokens=24,
            do_sample=False,
        )
    found: list[int] = ids[0, inputs.length :].tolist()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_unmerged_model(
    kind: str, base: Path, plain: tuple[list[int], str], tmp_path: Path
) -> None:
    adapter = write_adapter(base, tmp_path, **KINDS[kind])
    config = settings(base, adapter, pixels="reference")
    merged, revision = answer(config)
    assert merged == answer_unmerged(base, adapter)
    assert merged != plain[0]
    assert revision.startswith(f"{plain[1]}+sha256:"), "the cache's key and results have it"
    inspect_checkpoint(config)


def test_an_adapter_beside_a_model_is_merged_only_if_it_is_named(
    base: Path, tmp_path: Path
) -> None:
    both = Path(shutil.copytree(base, tmp_path / "both"))
    adapter = write_adapter(base, tmp_path / "adapter")
    shutil.copytree(adapter, both, dirs_exist_ok=True)
    for start in (inspect_checkpoint, answer):
        with pytest.raises(ConfigurationError, match="VIDEOQA_ADAPTER=none to leave it out"):
            start(settings(both, None))
    assert answer(settings(both, "none"))[0] == answer(settings(base, None))[0]
    assert answer(settings(both, both))[0] == answer(settings(base, adapter))[0]


def edit(folder: Path, **fields: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rewrite(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: change(name, weight) for name, weight in load_file(path).items()}, path)


def cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def widen(name: str, weight: torch.Tensor) -> torch.Tensor:
    return torch.zeros(weight.shape[0], weight.shape[1] * 2) if "lora_A" in name else weight


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another rank": (lambda a: edit(a, r=4), "weights of other shapes than this model"),
    "another model's sizes": (lambda a: rewrite(a, widen), "weights of other shapes than this"),
    "another model's modules": (
        lambda a: edit(a, target_modules=["qkv"]),
        "modules that this model",
    ),
    "weights for nothing": (
        lambda a: edit(a, target_modules=["q_proj"]),
        "and the model lacks, 12",
    ),
    "weights missing": (lambda a: edit(a, target_modules=["q_proj", "k_proj"]), "weights"),
    "no LoRA": (lambda a: edit(a, peft_type="IA3"), "of type 'IA3', expected LORA"),
    "a newer peft's": (lambda a: edit(a, use_more=True), "has use_more, which peft"),
    "cut off": (cut, "cut off or damaged"),
    "no weights": (
        lambda a: (a / "adapter_model.safetensors").unlink(),
        "has no adapter_model.saf",
    ),
    "no JSON": (lambda a: (a / "adapter_config.json").write_text("{"), "is not valid JSON"),
    "no configuration": (lambda a: (a / "adapter_config.json").unlink(), "no adapter_config.json"),
    "no folder": (shutil.rmtree, "expected a folder with adapter_config.json"),
}


def test_each_fault_is_named_by_doctor_and_start_alike(base: Path, tmp_path: Path) -> None:
    good = write_adapter(base, tmp_path / "good")
    wrong = {}
    for number, (name, (spoil, words)) in enumerate(FAULTS.items()):
        adapter = Path(shutil.copytree(good, tmp_path / str(number)))
        spoil(adapter)
        try:
            inspect_checkpoint(settings(base, adapter))
            wrong[name] = "accepted"
        except ConfigurationError as error:
            if (
                words not in error.message
                or error.param != "adapter"
                or str(adapter) not in error.message
            ):
                wrong[name] = error.message
    assert not wrong
    edit(good, r=4)
    with pytest.raises(ConfigurationError, match="weights of other shapes than this model"):
        Engine(settings(base, good)).start()


def test_weights_that_are_no_numbers_are_not_merged(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path)
    rewrite(adapter, lambda _, weight: weight * float("nan"))
    with pytest.raises(ConfigurationError, match="NaN or infinite weights"):
        Engine(settings(base, adapter)).start()


def test_an_adapter_of_another_model_on_the_hub_is_refused(base: Path, tmp_path: Path) -> None:
    from videoqa_worker.engine.model.checkpoint.adapter import _check_base, _open

    adapter = write_adapter(base, tmp_path)
    edit(adapter, base_model_name_or_path="llava-hf/llava-1.5-7b-hf")
    opened = _open(str(adapter), None)
    with pytest.raises(ConfigurationError, match="was trained on llava-hf/"):
        _check_base(opened, "llava-hf/llava-1.5-13b-hf")
    for same in ("llava-hf/llava-1.5-7b-hf", "unsloth/llava-1.5-7b-hf-bnb-4bit", str(base)):
        _check_base(opened, same)


def test_what_cannot_be_merged_is_refused_before_weights_are_read(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_adapter(base, tmp_path)
    with pytest.raises(ConfigurationError, match="with quantization='4bit', expected one of them"):
        inspect_checkpoint(settings(base, adapter, quantization="4bit"))
    environ = {"VIDEOQA_ADAPTER": str(adapter), "VIDEOQA_SERVER_URL": "http://127.0.0.1:1/v1"}
    with pytest.raises(ConfigurationError, match="have it load the adapter"):
        WorkerSettings.from_environment(environ)
    with pytest.raises(ConfigurationError, match=r"without its model.*VIDEOQA_ADAPTER"):
        inspect_checkpoint(settings(adapter, None))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigurationError, match=r"without peft; pip install './worker\[adapters\]'"
    ):
        inspect_checkpoint(settings(base, adapter))
