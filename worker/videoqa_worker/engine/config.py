"""What an engine is told: which model, where, and how much at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from videoqa.errors import ConfigurationError

__all__ = ["EngineConfig"]


@dataclass(frozen=True)
class EngineConfig:
    """Settings of one engine; nothing here is read from the environment."""

    model: str
    """A checkpoint of the LLaVA family: a hub id, or a folder."""
    revision: str | None = None
    """Commit, tag or branch on the hub; pin a commit in production."""
    device: str = "auto"
    """`cuda`, `cuda:1`, `cpu`, `mps`; auto: CUDA if there is one, else the CPU."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: float32 on the CPU, else bfloat16 (float16 where the GPU has no bfloat16)."""
    max_batch: int = 8
    """Rows generated together."""
    max_batch_tokens: int = 65_536
    """Rows times (longest prompt + longest answer): the memory for keys and values. 6 GiB for
    LLaVA-Interleave 0.5B at 96 KiB a token."""
    prefill_chunk_tokens: int = 8192
    """A prompt comes in by pieces of so many tokens while other rows run, which get a token each in
    between. Eight frames of LLaVA-Interleave (5,850) are one piece: more of them cost more than
    a row would gain."""
    feature_cache_bytes: int | None = None
    """For features of pictures, to be used again; None: 5% of a GPU's memory, 256 MiB on the CPU;
    0: none."""
    prefix_cache_bytes: int | None = None
    """The same for keys and values of prompts up to their last picture."""
    pack_from_tokens: int | None = 512
    """Rows that run at the same time about the same pictures have one copy of what their prompts begin
    with, and a step reads it once for all of them, if it has so many tokens; None: never. A slot with
    fewer rows than another is filled up, which costs a CPU more than short beginnings spare."""
    batch_invariant: bool = False
    """No answer depends on who runs beside it, to the last bit, in any dtype: every pass that a row is in
    has the shapes that it has when the row is alone. Steps cost what they cost with all rows; questions
    are not packed. Without it, answers in half precision may change with the company."""
    cuda_graphs: bool = True
    """Launch decode steps as CUDA graphs."""
    batching: Literal["slots", "generate"] = "slots"
    """generate: left-padded batches by transformers' `generate`, as always for models that slots
    cannot hold (see `kv_shape`). The next two are for those alone."""
    batch_wait_s: float = 0.005
    """How long the first request waits for company; 0: not at all."""
    length_ratio: float = 1.5
    """Prompts run together only if the longest is at most this times the shortest: unsorted
    batches of 8 spent 2.5 times the work of single runs on padding."""
    max_context: int | None = None
    """Tokens of prompt and answer together; None: what the model was built for."""
    chat_template: str = "checkpoint"
    """`checkpoint`, `guide` or a Jinja template; see `videoqa_worker.prompt.chat_template`."""
    pixels: Literal["fast", "reference"] = "fast"
    """fast: resized by torch as uint8, normalised on the device; within 1/255 on average of
    reference: the checkpoint's own processor on PIL pictures, 4 (720p) to 5 (1080p) times the
    CPU time a frame (`benchmarks/pixels.py`)."""
    attn_implementation: str | None = None
    """None: SDPA, and on CUDA for single tokens the fastest kernel that is right there (see `kernels`);
    `sdpa`: that alone. Any other does not run in slots."""
    device_map: str | None = None
    """`auto` spreads a model over several GPUs (accelerate)."""
    quantization: Literal["4bit", "8bit"] | None = None
    """The weights of the text model in so many bits, by bitsandbytes. With 8 its arithmetic depends a little
    on the rows that run together."""
    cpu_threads: int | None = None
    """Threads of one torch operation on the CPU; None: torch's default, and 1 beside a GPU."""

    def __post_init__(self) -> None:
        wrong = {
            "max_batch": (self.max_batch >= 1, "at least 1"),
            "max_batch_tokens": (self.max_batch_tokens >= 1, "at least 1"),
            "pack_from_tokens": ((self.pack_from_tokens or 1) >= 1, "at least 1"),
            "prefill_chunk_tokens": (self.prefill_chunk_tokens >= 1, "at least 1"),
            "feature_cache_bytes": ((self.feature_cache_bytes or 0) >= 0, "at least 0"),
            "prefix_cache_bytes": ((self.prefix_cache_bytes or 0) >= 0, "at least 0"),
            "batching": (self.batching in ("slots", "generate"), "'slots' or 'generate'"),
            "batch_wait_s": (0 <= self.batch_wait_s <= 1, "0 to 1 second"),
            "length_ratio": (self.length_ratio >= 1, "at least 1"),
            "cpu_threads": (self.cpu_threads is None or self.cpu_threads >= 1, "at least 1"),
            "pixels": (self.pixels in ("fast", "reference"), "'fast' or 'reference'"),
            "model": (bool(self.model), "a hub id or a folder"),
        }
        for name, (fine, expected) in wrong.items():
            if not fine:
                raise ConfigurationError(
                    f"got {name}={getattr(self, name)!r}, expected {expected}", param=name
                )
