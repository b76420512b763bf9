"""Tiny checkpoints in forms that vLLM takes, and engines of both kinds on them.

vLLM pins versions of torch and transformers, so these tests run in an environment of their own: `make test-vllm`.
Elsewhere they are skipped, without importing vLLM. Each start of vLLM takes half a minute.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support.models import write_checkpoint
from support.video_models import write_video_model

from videoqa_worker.engine import Engine, VllmEngine
from videoqa_worker.settings import EngineConfig

HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
"""Heads of 32 numbers, the smallest that vLLM's attention on a CPU has."""
SETTINGS = {"device": "cpu", "dtype": "float32", "cpu_threads": 1, "max_batch_tokens": 8192}
FAMILIES = ("interleave", "onevision", "qwen2_vl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips all tests here where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is not None:
        return
    skip = pytest.mark.skip(reason="vLLM is not installed here; `make test-vllm` runs this test")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(skip)


def write_for_vllm(family: str, folder: Path) -> Path:
    """Writes a tiny checkpoint with the names that weights have on the hub.

    transformers 5 writes SigLIP's without `vision_model`, which vLLM does not find.
    """
    if family == "qwen2_vl":
        return write_video_model(family, folder, **HEADS)
    write_checkpoint(family, folder, **HEADS)
    path = folder / "model.safetensors"
    weights = {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor
        for name, tensor in load_file(path).items()
    }
    save_file(weights, path, {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def vllm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny checkpoint, written at its first use."""
    written: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in written:
            written[family] = write_for_vllm(family, tmp_path_factory.mktemp(family))
        return written[family]

    return of


@pytest.fixture(scope="session")
def vllm_config(vllm_checkpoint: Callable[[str], Path]) -> Callable[..., EngineConfig]:
    """Settings of an engine on a tiny checkpoint."""

    def of(family: str, **settings: object) -> EngineConfig:
        model = str(vllm_checkpoint(family))
        return EngineConfig.model_validate({"model": model, **SETTINGS, **settings})

    return of


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Name of a tiny checkpoint."""
    return str(request.param)


@pytest.fixture(scope="module")
def pair(
    family: str, vllm_config: Callable[..., EngineConfig]
) -> Iterator[tuple[VllmEngine, Engine]]:
    """vLLM and our own engine on the same checkpoint."""
    with ExitStack() as stack:
        own = Engine(vllm_config(family))
        theirs = VllmEngine(vllm_config(family, engine="vllm"))
        yield stack.enter_context(theirs), stack.enter_context(own)
