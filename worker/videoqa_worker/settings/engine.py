"""Settings of the engine: the model, its device, and the size of a batch; or the model's server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from videoqa.settings import Config, HttpUrl

__all__ = ["DEMO_MODEL", "DEMO_MODEL_PATH", "EngineConfig", "ServerConfig"]

DEMO_MODEL = "demo"
"""The name under which the bundled model is loaded and announced."""
DEMO_MODEL_PATH = Path(__file__).parents[1] / "demo" / "model"


def _require_template(choice: str) -> str:
    if choice not in ("checkpoint", "guide") and "{" not in choice:
        raise ValueError("expected 'checkpoint', 'guide' or the text of a Jinja template")
    return choice


class EngineConfig(Config):
    """Settings of an engine whose model is in this process."""

    kind: Literal["transformers", "vllm"] = Field(
        default="transformers",
        alias="engine",
        description="vllm: its engine in this worker runs the model (`pip install './worker[vllm]'`)",
    )
    model: str = Field(
        default="llava-hf/llava-interleave-qwen-0.5b-hf",
        min_length=1,
        description="hub id or folder of a LLaVA-family checkpoint, or `demo` for the bundled one",
    )
    revision: str | None = Field(
        default=None,
        description="commit of the hub's checkpoint; pin it, or answers may change unannounced",
    )
    adapter: str | None = Field(
        default=None,
        min_length=1,
        description="folder or hub id of a LoRA adapter that is merged into the model at the start "
        "(`pip install './worker[adapters]'`); none: leave out one that lies beside the model",
    )
    adapter_revision: str | None = Field(
        default=None, description="commit of the hub's adapter; pin it, as `revision`"
    )
    device: str = Field(
        default="auto", description="cuda, cuda:1, mps or cpu; auto: the best available"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="auto: bfloat16 on a GPU that has it, float16 on an older one, float32 on the CPU",
    )
    device_map: str | None = Field(
        default=None,
        description="`auto` spreads a model over several GPUs (accelerate), which then runs in padded batches",
    )
    tensor_parallel: int = Field(
        default=1, ge=1, description="GPUs over which vLLM spreads each layer of the model"
    )
    quantization: Literal["4bit", "8bit"] | None = Field(
        default=None,
        description="loads the text model's weights in 4 or 8 bits (`pip install './worker[quantized]'`)",
    )
    attn_implementation: str | None = Field(
        default=None,
        description="sdpa, eager or flash_attention_2; unset: sdpa, and on CUDA the fastest decode kernel "
        "that proves correct at the start; only unset and sdpa run with continuous batching",
    )
    chat_template: Annotated[str, AfterValidator(_require_template)] = Field(
        default="checkpoint",
        description="checkpoint: its own chat template; guide: the newlines of the Hugging Face guide; "
        "or a Jinja template",
    )
    pixels: Literal["fast", "reference"] = Field(
        default="fast",
        description="fast: resized as bytes, within 1/255 of the checkpoint's own processor; "
        "reference: by that processor itself, 4 to 5 times the CPU time",
    )
    cpu_threads: int | None = Field(
        default=None,
        ge=1,
        description="threads of the model's operations; unset: what OMP_NUM_THREADS says, else all cores but one, and "
        "1 beside a GPU or for a model of less than 50 M parameters",
    )
    gpu_memory_share: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="share of a GPU's memory for this worker: weights, passes, KV cache and caches; two workers on "
        "one GPU: 0.45 each",
    )
    max_batch: int = Field(
        default=8,
        ge=1,
        le=256,
        description="sequences generated together; unset, on a GPU: up to 64, as its memory allows for",
    )
    max_batch_tokens: int = Field(
        default=65_536,
        ge=1,
        description="size of the KV cache: sequences x (longest prompt + answer); unset: on a GPU as many as fit, on "
        "the CPU fewer where memory is short",
    )
    max_context: int | None = Field(
        default=None,
        ge=1,
        description="most tokens of prompt and answer together; unset: what the model was built for",
    )
    frame_max_pixels: int | None = Field(
        default=None,
        ge=1,
        description="`max_pixels` of jobs that state none: most pixels of each frame, as the processor resizes it",
    )
    frame_max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="`max_tokens_per_frame` of jobs that state none",
    )
    # Eight frames of LLaVA-Interleave (5,850 tokens) are one chunk: more of them would cost more than
    # a decoding sequence gains.
    prefill_chunk_tokens: int = Field(
        default=8192,
        ge=1,
        description="a longer prompt is computed in chunks of this size while other sequences decode",
    )
    # Eight frames of 384 x 384 are 3.5 MB.
    pixel_cache_bytes: int = Field(
        default=64 << 20,
        ge=0,
        description="prepared pixels kept for the next job about the same frames; 0: shared only by jobs that need "
        "them at the same time",
    )
    feature_cache_bytes: int | None = Field(
        default=None,
        ge=0,
        description="image features kept for the next question; unset: 5% of a GPU, 256 MiB on the CPU, and at most "
        "an eighth of what is left beside the weights",
    )
    prefix_cache_bytes: int | None = Field(
        default=None,
        ge=0,
        description="KV of prompts up to their last frame, kept for the next question; unset: as for features",
    )
    # A slot with fewer sequences than another is padded, which costs a CPU more than short prefixes save.
    pack_from_tokens: int | None = Field(
        default=512,
        ge=1,
        description="sequences about the same frames share a prefix of at least this size in the KV cache",
    )
    cuda_graphs: bool = Field(
        default=True, description="run forward passes as CUDA graphs on a GPU"
    )
    batch_invariant: bool = Field(
        default=False,
        description="an answer is bitwise the same whatever else is in the batch; each step costs that of "
        "max_batch sequences",
    )
    batching: Literal["slots", "generate"] = Field(
        default="slots",
        description="slots: continuous batching; generate: padded batches, as always for models that slots "
        "cannot hold",
    )
    batch_wait_s: float = Field(
        default=0.005, ge=0, le=1, description="padded batches wait this long for more questions"
    )
    # Unsorted batches of 8 spent 2.5 times the work of single sequences on padding.
    length_ratio: float = Field(
        default=1.5,
        ge=1,
        description="in a padded batch the longest prompt is at most this times the shortest",
    )

    @property
    def checkpoint(self) -> str:
        """The hub id or folder that the loader opens."""
        if self.model == DEMO_MODEL:
            return str(DEMO_MODEL_PATH)
        return str(Path(self.model).expanduser()) if self.model.startswith("~") else self.model

    @property
    def summarizes(self) -> bool:
        """False for the demo model, which only answers questions about what it sees."""
        return self.model != DEMO_MODEL


class ServerConfig(Config):
    """Settings of a server with OpenAI's chat completions that has the model instead."""

    url: HttpUrl | None = Field(
        default=None,
        alias="server_url",
        description="a server with OpenAI's chat completions that runs the model, such as "
        "http://127.0.0.1:8000/v1 (vLLM, SGLang); unset: the worker loads the model itself",
    )
    model: str | None = Field(
        default=None,
        alias="server_model",
        description="the server's name for the model; unset: `model`",
    )
    api_key: SecretStr | None = Field(
        default=None, alias="server_api_key", description="API key of the model server"
    )
    images: Literal["png", "jpeg"] = Field(
        default="png",
        alias="server_images",
        description="format of the frames sent to the server; jpeg: a tenth of the bytes, lossy",
    )
    videos: Literal["auto", "video_url", "images"] = Field(
        default="auto",
        alias="server_videos",
        description="form of sampled frames. video_url: a video with each frame's time, as vLLM takes it if it is "
        "started with --trust-request-mm-kwargs; images: one by one; auto: by a trial at the start",
    )
    max_requests: int = Field(
        default=32, ge=1, alias="server_max_requests", description="requests to the server at once"
    )
    silence_s: float = Field(
        default=300.0,
        gt=0,
        alias="server_silence_s",
        description="a request to which the server sends nothing for this long fails and is tried again",
    )
    start_s: float = Field(
        default=600.0,
        ge=0,
        alias="server_start_s",
        description="how long the server may take to start and load its model",
    )
