"""Damaged, odd and foreign checkpoints: each is refused in words that name the fault and the next step.

`inspect_checkpoint` is what `videoqa doctor` runs, and `load` runs the same before it reads weights.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import __version__ as transformers_version

from videoqa.errors import ConfigurationError
from videoqa_worker.cli.doctor import _check_model
from videoqa_worker.engine import Engine, inspect_checkpoint
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.engine.model.checkpoint.foreign import SERVER
from videoqa_worker.settings import EngineConfig, WorkerSettings

Spoil = Callable[[Path], object]
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
AGAIN = "download it again"


def write(name: str, content: Any) -> Spoil:
    """Replaces a file by text or bytes, or by JSON of anything else."""
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    data = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / name).write_bytes(data)


def edit(name: str, **fields: Any) -> Spoil:
    """Replaces fields of a JSON object; those of `text_config` one by one."""

    def spoil(folder: Path) -> None:
        path = folder / name
        found = json.loads(path.read_text())
        for field, value in fields.items():
            found[field] = found[field] | value if field == "text_config" else value
        found.get("text_config", {}).pop("layer_types", None)
        path.write_text(json.dumps(found))

    return spoil


def drop(name: str, *fields: str) -> Spoil:
    def spoil(folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({k: v for k, v in found.items() if k not in fields}))

    return spoil


def cut(name: str, kept: int) -> Spoil:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:kept])


def remove(*names: str) -> Spoil:
    return lambda folder: [(folder / name).unlink() for name in names]


def only(**files: Any) -> Spoil:
    """Leaves these files alone, by their names with `__` for a dot."""

    def spoil(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        for name, content in files.items():
            write(name.replace("__", "."), content)(folder)

    return spoil


def change(convert: Callable[[torch.Tensor], torch.Tensor], **more: torch.Tensor) -> Spoil:
    """Rewrites the weights, and adds some."""

    def spoil(folder: Path) -> None:
        weights = {name: convert(weight) for name, weight in load_file(folder / WEIGHTS).items()}
        save_file(weights | more, folder / WEIGHTS, metadata={"format": "pt"})

    return spoil


def same(weight: torch.Tensor) -> torch.Tensor:
    return weight


def both(*spoils: Spoil) -> Spoil:
    return lambda folder: [spoil(folder) for spoil in spoils]


def link(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink() or (folder / name).symlink_to(folder / "gone")


def replace_by_folder(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink() or (folder / name).mkdir()


def index_of(*names: Any) -> Spoil:
    return write(INDEX, {"weight_map": {str(n): name for n, name in enumerate(names)}})


def rename_image_token(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"<image>"', '"<picture>"'))
    drop("tokenizer_config.json", "extra_special_tokens", "additional_special_tokens")(folder)


def quantized(method: str, **more: Any) -> Spoil:
    return edit(CONFIG, quantization_config={"quant_method": method, **more})


def remote(kind: str, architecture: str) -> Spoil:
    code = {"AutoConfig": "configuration.Config", "AutoModel": "modeling.Model"}
    return write(CONFIG, {"model_type": kind, "architectures": [architecture], "auto_map": code})


def processor(name: str) -> Spoil:
    return write("processor_config.json", {"processor_class": name})


PIXELS = "preprocessor_config.json"
NO_PROCESSOR = ("is no processor of transformers", "processor_config.json")
PACKED = torch.zeros(4, 4, dtype=torch.int32)
DAMAGED: Mapping[str, tuple[Spoil, tuple[str, ...]]] = {
    # Weights
    "weights cut off": (cut(WEIGHTS, -1000), (WEIGHTS, "cut off or damaged", AGAIN)),
    "weights cut in the header": (cut(WEIGHTS, 5), (WEIGHTS, "cut off or damaged", AGAIN)),
    "no byte of weights": (cut(WEIGHTS, 0), (WEIGHTS, "cut off or damaged", AGAIN)),
    "a page of a login": (write(WEIGHTS, "<html>" * 999), (WEIGHTS, "cut off or damaged")),
    "a pointer of Git LFS": (
        write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"),
        (WEIGHTS, "git lfs pull"),
    ),
    "weights that are a folder": (replace_by_folder(WEIGHTS), (WEIGHTS,)),
    "weights that are a dead link": (link(WEIGHTS), (WEIGHTS, "a file that is not there")),
    "an index of a missing shard": (
        both(remove(WEIGHTS), index_of("model-2-of-2.safetensors")),
        ("has no model-2-of-2.safetensors", INDEX),
    ),
    "an index that is cut off": (write(INDEX, "{"), (INDEX, "not valid JSON")),
    "an index without files": (index_of(), (INDEX, "names no weight files")),
    "an index of numbers": (index_of(3), (INDEX, "names no weight files")),
    "an index that leads elsewhere": (
        index_of("../x.safetensors"),
        (INDEX, "names no weight files"),
    ),
    "pickled weights": (
        both(remove(WEIGHTS), write("pytorch_model.bin", b"x")),
        ("pytorch_model.bin", "expected .safetensors", "convert"),
    ),
    "shapes of another size": (
        edit(CONFIG, text_config={"intermediate_size": 256}),
        ("6 weights of other shapes", "in the file, expected"),
    ),
    "a vocabulary smaller than the tokens": (
        edit(CONFIG, text_config={"vocab_size": 100}),
        ("of other shapes", "expected [100, 64]"),
    ),
    "a configuration of more layers": (
        edit(CONFIG, text_config={"num_hidden_layers": 3}),
        ("lacks 12 weights", "layers.2"),
    ),
    "a configuration of fewer layers": (
        edit(CONFIG, text_config={"num_hidden_layers": 1}),
        ("weights more than", "layers.1"),
    ),
    "a configuration without its text part": (drop(CONFIG, "text_config"), ("of other shapes",)),
    "weights in integers": (
        change(lambda weight: weight.to(torch.int8)),
        ("quantized weights", "I8", "quantization_config"),
    ),
    "scales of quantized weights": (
        change(same, **{"language_model.model.layers.0.mlp.up_proj.weight_scale": torch.ones(3)}),
        ("quantized weights", "weight_scale"),
    ),
    "packed weights": (
        change(same, **{"language_model.model.layers.0.mlp.up_proj.qweight": PACKED}),
        ("quantized weights", "quantization_config"),
    ),
    # Small files
    "no configuration": (remove(CONFIG), ("has no config.json",)),
    "an empty configuration": (write(CONFIG, ""), (CONFIG, "not valid JSON", AGAIN)),
    "a configuration cut off": (cut(CONFIG, 100), (CONFIG, "not valid JSON", AGAIN)),
    "a configuration that is a list": (write(CONFIG, []), (CONFIG, "holds list", AGAIN)),
    "a configuration that is null": (write(CONFIG, None), (CONFIG, "holds NoneType")),
    "a byte order mark": (write(CONFIG, b"\xef\xbb\xbf{}"), (CONFIG, "byte order mark")),
    "UTF-16": (write(CONFIG, "{}".encode("utf-16")), (CONFIG, "byte order mark")),
    "bytes that are no text": (write(CONFIG, b"\xff{\x00"), (CONFIG, "not valid JSON")),
    "a configuration that is a folder": (replace_by_folder(CONFIG), (CONFIG, "cannot be read")),
    "a configuration that is a dead link": (link(CONFIG), (CONFIG, "a link to a file")),
    "no model type": (drop(CONFIG, "model_type", "architectures"), ("names no model_type",)),
    "a newer model type": (
        edit(CONFIG, model_type="llava_ultra", transformers_version="99.0"),
        ("'llava_ultra', written by transformers 99.0", transformers_version, "upgrade"),
    ),
    "a field of another type": (edit(CONFIG, image_token_index="x"), ("image_token_index", "str")),
    "a vision part that is a list": (edit(CONFIG, vision_config=[1]), ("vision_config",)),
    "a dtype that is none": (edit(CONFIG, dtype="float3"), ("float3",)),
    "no tokenizer": (
        remove("tokenizer.json", "tokenizer_config.json"),
        ("expected tokenizer.json",),
    ),
    "a tokenizer cut off": (cut("tokenizer.json", 500), ("tokenizer.json", "not valid JSON")),
    "a tokenizer that is a list": (write("tokenizer.json", []), ("tokenizer.json", "holds list")),
    "tokenizer settings cut off": (cut("tokenizer_config.json", 9), ("tokenizer_config.json",)),
    "a tokenizer without the image token": (rename_image_token, ("have no token 4", "different")),
    "an image token outside of the vocabulary": (
        edit(CONFIG, image_token_index=99_999),
        ("have no token 99999", "config.json and tokenizer.json"),
    ),
    "no preprocessor": (remove("preprocessor_config.json"), ("preprocessor_config.json",)),
    "a preprocessor cut off": (cut("preprocessor_config.json", 9), ("preprocessor_config.json",)),
    "a preprocessor of another family": (
        write("preprocessor_config.json", {"image_processor_type": "Qwen2VLImageProcessor"}),
        ("fails on a small image", "preprocessor_config.json"),
    ),
    "a preprocessor that is unknown": (
        write("preprocessor_config.json", {"image_processor_type": "NoSuchImageProcessor"}),
        ("Unrecognized image processor",),
    ),
    "layers without end": (
        edit(CONFIG, text_config={"num_hidden_layers": 10**12}),
        ("num_hidden_layers=1000000000000", "expected at most 1000", AGAIN),
    ),
    "a vocabulary without end": (
        edit(CONFIG, text_config={"vocab_size": 2**40}),
        ("vocab_size=1099511627776", "expected at most"),
    ),
    "a context of no tokens": (
        edit(CONFIG, text_config={"max_position_embeddings": -5}),
        ("too small for a question", "max_position_embeddings"),
    ),
    "a division by zero": (
        edit(CONFIG, text_config={"num_attention_heads": 0}),
        ("a value in config.json", "ZeroDivisionError", "again"),
    ),
    "a text part of a list": (
        edit(CONFIG, text_config={"model_type": ["x"]}),
        ("a value in config.json", "unhashable", "again"),
    ),
    "features for which there are no tokens": (
        edit(CONFIG, vision_feature_select_strategy="default"),
        ("makes 8 features of a picture", "have 9 tokens", "do not fit together"),
    ),
    "a vision layer that is not there": (
        edit(CONFIG, vision_feature_layer=-99),
        ("the vision part of", "IndexError", "vision_feature_layer"),
    ),
    "pictures of another size": (
        edit("preprocessor_config.json", size={"height": 84, "width": 84}),
        ("the vision part of", "preprocessor_config.json"),
    ),
    "a deviation of zero": (
        edit("preprocessor_config.json", image_std=[0, 0, 0]),
        ("numbers without end", "image_std"),
    ),
    "a preprocessor that is a pipe": (
        lambda f: (f / PIXELS).unlink() or os.mkfifo(f / PIXELS),
        (PIXELS, "it is no file"),
    ),
    "a preprocessor of a wrong type": (
        edit("preprocessor_config.json", image_processor_type=["x"]),
        ("a value in preprocessor_config.json", "again"),
    ),
    "a factor that is text": (
        edit("preprocessor_config.json", rescale_factor="x"),
        ("a value in preprocessor_config.json", "again"),
    ),
    "a tokenizer without its model": (
        write("tokenizer.json", {"version": "1.0"}),
        ("a value in tokenizer.json", "'added_tokens'", "again"),
    ),
    "tokenizer settings of a wrong type": (
        edit("tokenizer_config.json", tokenizer_class=5),
        ("tokenizer_config.json", "wrong type", "again"),
    ),
    "a file of templates without one": (
        write("chat_template.json", {}),
        ("chat_template.json", "wrong type", "again"),
    ),
    "a processor that is a model": (processor("BertModel"), NO_PROCESSOR),
    "a processor that is a function": (processor("pipeline"), NO_PROCESSOR),
    "a processor of every kind": (processor("AutoProcessor"), NO_PROCESSOR),
    "a processor of no kind": (processor("ProcessorMixin"), NO_PROCESSOR),
    "a processor that is a text": (processor("__name__"), NO_PROCESSOR),
    "a processor of sound": (
        write("processor_config.json", {"processor_class": "WhisperProcessor"}),
        ("feature_extractor", "expected one for images and text"),
    ),
    "generation settings cut off": (
        write("generation_config.json", "{"),
        ("generation_config.json", "not valid JSON"),
    ),
    "a chat template cut off": (write("chat_template.jinja", "{% for"), ("chat template",)),
    "nothing": (only(), ("empty folder", "check the name")),
    # Other formats
    "GGUF": (only(model__gguf="GGUF"), ("GGUF", SERVER)),
    "GGUF beside a configuration": (
        both(remove(WEIGHTS), write("model.gguf", "GGUF")),
        ("model.gguf", "expected .safetensors"),
    ),
    "Mistral's own format": (
        only(params__json={}, consolidated__safetensors="x", tekken__json={}),
        ("maker's own code", SERVER),
    ),
    "Meta's own format": (only(params__json={}, consolidated__00__pth="x"), ("maker's own code",)),
    "ONNX": (only(model__onnx="x"), ("ONNX", SERVER)),
    "MLX": (edit(CONFIG, quantization={"group_size": 64, "bits": 4}), ("MLX", SERVER)),
    "diffusers": (only(model_index__json={}), ("diffusers", "choose a model for image-text")),
    "an adapter": (only(adapter_config__json={}), ("VIDEOQA_ADAPTER", "VIDEOQA_MODEL")),
    "a tokenizer of sentencepiece": (
        both(remove("tokenizer.json"), write("tokenizer.model", "x")),
        ("needs sentencepiece", "./worker[models]"),
    ),
    "a tokenizer of tiktoken": (
        both(remove("tokenizer.json"), write("qwen.tiktoken", "x")),
        ("needs tiktoken", "./worker[models]"),
    ),
    # LLaVA's own code, and code of a checkpoint's own
    "llava_llama": (edit(CONFIG, model_type="llava_llama"), ("llava-hf/llava-1.5-7b-hf", SERVER)),
    "llava_mistral": (
        edit(CONFIG, model_type="llava_mistral"),
        ("llava-hf/llava-v1.6-mistral-7b-hf", SERVER),
    ),
    "llava_qwen": (edit(CONFIG, model_type="llava_qwen"), ("llava-onevision-qwen2-7b-ov-hf",)),
    "the original under transformers' type": (
        edit(CONFIG, mm_vision_tower="openai/clip", architectures=["LlavaLlamaForCausalLM"]),
        ("llava-hf/llava-1.5-7b-hf", SERVER),
    ),
    "InternVL": (remote("internvl_chat", "InternVLChatModel"), ("OpenGVLab/InternVL3-1B-hf",)),
    "MiniCPM-V": (remote("minicpmv", "MiniCPMV"), ("openbmb/MiniCPM-V-4.6", SERVER)),
    "Phi-3-vision": (remote("phi3_v", "Phi3VForCausalLM"), ("auto_map", "not run here", SERVER)),
    "CogVLM": (remote("cogvlm2", "CogVLMForCausalLM"), ("auto_map", "not run here", SERVER)),
    "a processor of its own code": (
        edit(
            "preprocessor_config.json",
            auto_map={"AutoImageProcessor": "x.X"},
            image_processor_type="X",
        ),
        ("is not run here", "VIDEOQA_SERVER_URL"),
    ),
    # Quantized
    "GPTQ": (quantized("gptq", bits=4), ("gptq", "pip install optimum gptqmodel", "SERVER_URL")),
    "AWQ": (quantized("awq", bits=4), ("awq", "pip install gptqmodel", "full precision")),
    "compressed-tensors": (
        quantized("compressed-tensors", format="pack-quantized", config_groups={}),
        ("pip install compressed-tensors",),
    ),
    "torchao": (quantized("torchao", quant_type="int4_weight_only"), ("pip install torchao",)),
    "quanto": (quantized("quanto", weights="int8"), ("pip install optimum-quanto",)),
    "HQQ": (quantized("hqq"), ("pip install hqq",)),
    "AQLM": (quantized("aqlm"), ("pip install aqlm",)),
    "AutoRound": (quantized("auto-round", bits=4), ("pip install auto-round",)),
    "EXL2": (quantized("exl2"), ("exl2", "transformers does not know this kind", "SERVER_URL")),
    "a quantization without a name": (
        edit(CONFIG, quantization_config={"bits": 4}),
        ("quantization_config without quant_method",),
    ),
}
NAMELESS = {"a processor of sound", "a chat template cut off"}
"""Faults whose words name the part alone: `chat_template` is a setting as well."""
HARMLESS: Mapping[str, Spoil] = {
    "weights in float64": change(lambda weight: weight.double()),
    "weights in bfloat16": change(lambda weight: weight.bfloat16()),
    "a dtype of float64": edit(CONFIG, dtype="float64"),
    "a processor that nobody knows": processor("os.system"),
    "a configuration that asks for tuples": edit(CONFIG, return_dict=False),
    "an index with a weight that no file has": index_of(WEIGHTS),
    "much of something else": edit(CONFIG, junk=[{"a": {"b": [1, {"c": "d"}]}}] * 500),
    "no architectures": drop(CONFIG, "architectures"),
    "weights that are not used": change(same, **{"old.rotary_emb.inv_freq": torch.ones(3)}),
    "files of other formats beside": both(write("x.gguf", "x"), write("pytorch_model.bin", "x")),
}


@pytest.fixture
def copied(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[[Spoil], Path]:
    """A copy of a good checkpoint, spoilt."""

    def copied(spoil: Spoil) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(checkpoint("interleave"), folder)
        spoil(folder)
        return folder

    return copied


def settings(model: object) -> EngineConfig:
    return EngineConfig(model=str(model), device="cpu", cpu_threads=1)


def refuse(model: object) -> str:
    """Returns the words in which a checkpoint is refused; empty if it is not."""
    try:
        inspect_checkpoint(settings(model))
    except ConfigurationError as error:
        return error.message
    return ""


def test_each_damaged_or_foreign_checkpoint_is_refused_in_words(
    copied: Callable[[Spoil], Path],
) -> None:
    wrong = {}
    for name, (spoil, words) in DAMAGED.items():
        folder = copied(spoil)
        said = refuse(folder)
        is_named = str(folder) in said or name in NAMELESS
        if not is_named or not all(text in said for text in words) or len(said) > 700:
            wrong[name] = said
    assert not wrong


def test_a_model_whose_configuration_asks_for_tuples_starts(
    copied: Callable[[Spoil], Path],
) -> None:
    with Engine(settings(copied(HARMLESS["a configuration that asks for tuples"]))) as engine:
        assert isinstance(engine._runner, ContinuousRunner)


def test_what_is_only_unusual_is_taken(copied: Callable[[Spoil], Path]) -> None:
    assert {name: said for name, spoil in HARMLESS.items() if (said := refuse(copied(spoil)))} == {}


@pytest.mark.parametrize(
    "fault", ["an index of a missing shard", "GPTQ", "a configuration of fewer layers", "MLX"]
)
def test_a_start_says_what_doctor_says(fault: str, copied: Callable[[Spoil], Path]) -> None:
    folder = copied(DAMAGED[fault][0])
    with pytest.raises(ConfigurationError) as caught:
        Engine(settings(folder)).start()
    check = _check_model(WorkerSettings.from_environment({}, model=str(folder), device="cpu"))
    assert not check.ok
    assert check.found == caught.value.message
    assert caught.value.code == "configuration_error"


def test_names_that_are_no_folder(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = checkpoint("interleave")
    assert refuse(f"{folder}/") == ""
    monkeypatch.setenv("HOME", str(folder.parent))
    assert refuse(f"~/{folder.name}") == ""
    expected = {
        f"{folder}/{CONFIG}": "which is a file, expected the folder",
        "/no/such/folder": "expected a folder with config.json: there is none",
        "a/b/c": "expected a folder with config.json: there is none",
        "C:\\models\\llava": "expected a folder with config.json: there is none",
        "https://huggingface.co/llava-hf/x": "expected an id on the hub",
        "file:///models/llava": "expected an id on the hub",
        "two words": "expected an id on the hub",
    }
    assert {
        name: said for name, text in expected.items() if text not in (said := refuse(name))
    } == {}
