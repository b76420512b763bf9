"""Starting an engine: what it says on the way, and what it says when it cannot."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from videoqa.errors import ConfigurationError
from videoqa_worker.engine import Engine
from videoqa_worker.settings import EngineConfig


@pytest.fixture
def copy(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(checkpoint("interleave"), tmp_path / "model"))


def start(model: Any, **settings: Any) -> Engine:
    return Engine(EngineConfig(model=str(model), **{"cpu_threads": 1, **settings}))


def test_the_start_tells_what_it_is_doing(checkpoint: Callable[[str], Path]) -> None:
    states: list[str] = []
    config = EngineConfig(model=str(checkpoint("interleave")), device="cpu")
    with Engine(config, on_state=states.append) as engine:
        assert engine.ready
        assert (engine.device, engine.dtype) == ("cpu", "float32")
        assert engine.model_id == str(checkpoint("interleave"))
        assert engine.waiting == 0
    assert states == [
        "loading configuration",
        "loading processor",
        "loading weights",
        "trying the model",
        "warming up",
        "ready",
    ]


def test_half_precision_is_a_setting(checkpoint: Callable[[str], Path]) -> None:
    with start(checkpoint("interleave"), dtype="bfloat16", device="cpu") as engine:
        assert engine.dtype == "bfloat16"


def test_a_local_checkpoints_revision_changes_with_its_files(copy: Path) -> None:
    with start(copy) as engine:
        first = engine.revision
    with start(copy) as engine:
        assert engine.revision == first
    assert first.startswith("sha256:")
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with start(copy) as engine:
        assert engine.revision != first


def test_a_checkpoint_of_the_hub_goes_by_its_commit(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--some--llava"
    shutil.copytree(checkpoint("interleave"), cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for revision in (None, commit):
        with start("some/llava", revision=revision) as engine:
            assert engine.revision == commit
            assert engine.model_id == "some/llava"


def check_refusal(engine: Engine, *says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        engine.start()
    for text in says:
        assert text in str(caught.value)
    assert not engine.ready
    engine.close()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    check_refusal(start(tmp_path / "nothing"), "expected a folder with config.json")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    check_refusal(start(tmp_path), "empty folder", "expected config.json")


def test_a_model_that_sees_nothing(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=10, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    check_refusal(start(tmp_path), "of type 'qwen2'", "image-text-to-text")


def test_weights_that_are_no_safetensors(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    check_refusal(start(copy), "safetensors", "convert")


def test_weights_that_are_cut_off(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    check_refusal(start(copy), "model.safetensors is cut off or damaged")


def test_weights_of_another_shape(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["hidden_size"] = 128
    (copy / "config.json").write_text(json.dumps(config))
    check_refusal(start(copy), "31 weights of other shapes", "[262, 64] in the file")


def test_weights_that_are_missing_for_a_part_of_the_model(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    config["text_config"].pop("layer_types", None)
    (copy / "config.json").write_text(json.dumps(config))
    check_refusal(start(copy), "lacks 12 weights", "layers.2")


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_refusal(start("llava-hf/no-such-checkpoint-here"), "cannot load llava-hf/")


def test_a_device_that_is_not_there(checkpoint: Callable[[str], Path]) -> None:
    check_refusal(start(checkpoint("interleave"), device="cuda:77"), "cuda:77")


def test_a_device_that_is_none(checkpoint: Callable[[str], Path]) -> None:
    check_refusal(start(checkpoint("interleave"), device="gpu"), "device='gpu'")


def test_quantization_without_its_library(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_refusal(start(checkpoint("interleave"), quantization="4bit"), "./worker[quantized]")


def test_a_model_that_loads_but_cannot_answer(copy: Path) -> None:
    path = copy / "model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).fill_(math.nan)
    save_file(weights, path, metadata={"format": "pt"})
    check_refusal(start(copy), "fails on a first question", "NaN", "take another revision")


@pytest.mark.parametrize(
    "wrong",
    [{"max_batch": 0}, {"batch_wait_s": -1.0}, {"length_ratio": 0.5}, {"cpu_threads": 0}],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong)).upper()):
        EngineConfig(model="some/model", **wrong)
