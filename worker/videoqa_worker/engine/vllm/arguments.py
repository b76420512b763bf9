"""Turns the settings of an engine into the arguments of vLLM's, and refuses by name what vLLM has no part for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videoqa.errors import ConfigurationError
from videoqa_worker.settings import EngineConfig

__all__ = ["build_arguments", "check_device", "check_settings", "count_kv_bytes"]

_SIZED_BY_VLLM = "vLLM sizes its caches itself, from VIDEOQA_GPU_MEMORY_SHARE"
_NO_LIMITS = "vLLM prepares frames by the settings in the checkpoint; change them in a copy of it"
_REFUSED: Mapping[str, str] = {
    "adapter": "merge the adapter into a copy of the checkpoint",
    "device_map": "VIDEOQA_TENSOR_PARALLEL spreads a model over several GPUs",
    "attn_implementation": "vLLM chooses among its own kernels",
    "batch_invariant": "vLLM has it for some GPUs only",
    "batching": "vLLM always batches continuously",
    "pixel_cache_bytes": "vLLM keeps prepared pixels in a cache of its own",
    "frame_max_pixels": _NO_LIMITS,
    "frame_max_tokens": _NO_LIMITS,
    "feature_cache_bytes": _SIZED_BY_VLLM,
    "prefix_cache_bytes": _SIZED_BY_VLLM,
    "pack_from_tokens": "vLLM shares prefixes by blocks of its KV cache",
    "batch_wait_s": "only padded batches have it",
    "length_ratio": "only padded batches have it",
}
"""Settings that change nothing in vLLM, and what there is instead."""
_BLOCK_TOKENS = 128
"""Positions of a block of vLLM's KV cache on a CPU; on GPUs they are fewer."""


def check_settings(config: EngineConfig) -> None:
    """Refuses settings that vLLM would not follow.

    Raises:
        ConfigurationError: names the first of them.
    """
    fields = type(config).model_fields
    for name, instead in _REFUSED.items():
        value = getattr(config, name)
        if name in config.model_fields_set and value not in (fields[name].default, "none", "slots"):
            raise _make_refusal(name, value, instead)
    if config.quantization == "8bit":
        raise _make_refusal("quantization", "8bit", "vLLM loads in 4 bits only")


def _make_refusal(name: str, value: object, instead: str) -> ConfigurationError:
    return ConfigurationError(
        f"got VIDEOQA_{name.upper()}={value!s:.80} with VIDEOQA_ENGINE=vllm, expected it unset: {instead}; or set "
        "VIDEOQA_ENGINE=transformers",
        param=name,
    )


def check_device(config: EngineConfig, device_type: str) -> None:
    """Refuses a device that is not the one that this vLLM was built for.

    Arguments:
        device_type: of vLLM's platform, as `cuda`.

    Raises:
        ConfigurationError: it is another one, or has a number.
    """
    if config.device in ("auto", device_type):
        return
    if config.device.partition(":")[0] == device_type:
        raise _make_refusal("device", config.device, "CUDA_VISIBLE_DEVICES chooses among GPUs")
    raise _make_refusal("device", config.device, f"this build of vLLM runs on {device_type}")


def build_arguments(
    config: EngineConfig, *, device_type: str, model_config: Any, commit: str | None
) -> dict[str, Any]:
    """Returns the arguments of vLLM's engine, by their names there.

    Arguments:
        device_type: of vLLM's platform, as `cuda`.
        model_config: of the checkpoint.
        commit: of the hub's checkpoint; None for a folder.
    """
    on_cpu = device_type == "cpu"
    found: dict[str, Any] = {
        "model": config.checkpoint,
        "revision": commit,
        "tokenizer_revision": commit,
        "trust_remote_code": False,
        # A checkpoint's own settings reach vLLM with each request: see `sampling`.
        "generation_config": "vllm",
        "dtype": "float32" if on_cpu and config.dtype == "auto" else config.dtype,
        "max_num_seqs": config.max_batch,
        "max_model_len": config.max_context,
        # Also the most tokens of one picture or video: vLLM keeps room for the features of so many.
        "max_num_batched_tokens": config.prefill_chunk_tokens,
        # On the device vLLM normalises by what the image processor's file states. Where that leaves the mean to the
        # processor's own default the model would get numbers up to 255, and a video's mean may be another one.
        "mm_device_do_normalize": False,
        "tensor_parallel_size": config.tensor_parallel,
        # vLLM's compiled graphs take minutes on a CPU, and round otherwise.
        "enforce_eager": on_cpu or not config.cuda_graphs,
        "scheduling_policy": "priority",
        "disable_log_stats": True,
    }
    if config.quantization == "4bit":
        found["quantization"] = "bitsandbytes"
    if not on_cpu:
        found["gpu_memory_utilization"] = config.gpu_memory_share
    if on_cpu or "max_batch_tokens" in config.model_fields_set:
        found["kv_cache_memory_bytes"] = count_kv_bytes(config, model_config, on_cpu=on_cpu)
    return found


def count_kv_bytes(config: EngineConfig, model_config: Any, *, on_cpu: bool) -> int:
    """Returns the size of a KV cache of `max_batch_tokens` positions, on each device."""
    text = model_config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    number_bytes = 4 if config.dtype == "float32" or (on_cpu and config.dtype == "auto") else 2
    here = -(-heads // config.tensor_parallel)
    position_bytes = 2 * text.num_hidden_layers * here * size * number_bytes
    # vLLM keeps one block for itself, and each sequence begins a new one.
    blocks = -(-config.max_batch_tokens // _BLOCK_TOKENS) + 1
    return int(position_bytes * blocks * _BLOCK_TOKENS)
