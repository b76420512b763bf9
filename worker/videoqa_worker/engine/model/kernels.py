"""Decode attention with per-sequence lengths (varlen): no mask, and no padding position is read.

Two kernels can do that on CUDA: torch's `varlen_attn`, for which a slot is a page, and flash-attn's
`flash_attn_with_kvcache`, where that package is installed. One is used only if a trial at the start, on
numbers like those of a step, finds it right and faster than SDPA with a mask.

It remains, though no GPU of ours has run it yet, since with masks alone every step reads all sequences' KV
up to the longest one's length, and the trial keeps a wrong or slower kernel out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from videoqa_worker import log_events
from videoqa_worker.engine.device.cuda_graphs import CudaGraphs

__all__ = ["KERNELS", "PAGE", "DecodeQueries", "Heads", "choose_fastest", "time_kernels"]

log = logging.getLogger(__name__)

PAGE = 256
"""Positions have to be a multiple of it: FlashAttention 2 reads pages of no other size."""
_MAX_ERROR = 0.1
"""In standard deviations of a sequence's right output. Rounding to 16 bits is a tenth of that; a short sequence
that attends to a key too many is far beyond it."""
_REPEATS = 20


@dataclass(frozen=True)
class Heads:
    """Attention heads of a text model's layer."""

    queries: int
    keys: int
    dim: int


class DecodeQueries(NamedTuple):
    """One query of each sequence, and the KV that it attends to."""

    query: torch.Tensor
    """[batch, heads, dim]."""
    keys: torch.Tensor
    """[batch, positions, KV heads, dim], as the values."""
    values: torch.Tensor
    lengths: torch.Tensor
    """int32[batch]: positions that each sequence attends to."""
    scale: float | None = None
    """Factor of the attention scores."""


Kernel = Callable[[DecodeQueries], torch.Tensor]
"""Returns [batch, heads, dim]."""


def _attend_varlen(queries: DecodeQueries) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, keys, values, lengths, scale = queries
    numbers = torch.arange(len(lengths) + 1, dtype=torch.int32, device=query.device)
    found = varlen_attn(
        query,
        keys,
        values,
        numbers,
        None,
        1,
        keys.shape[1],
        scale=scale,
        enable_gqa=query.shape[1] != keys.shape[2],
        seqused_k=lengths,
        block_table=numbers[:-1, None],
        # Left to choose, FlashAttention 2 gives NaN now and then (torchtitan#3235).
        num_splits=1,
    )
    assert isinstance(found, torch.Tensor)  # noqa: S101 - nothing else was asked for
    return found


def _attend_flash(queries: DecodeQueries) -> torch.Tensor:
    from flash_attn import flash_attn_with_kvcache

    query, keys, values, lengths, scale = queries
    found: torch.Tensor = flash_attn_with_kvcache(
        query[:, None], keys, values, cache_seqlens=lengths, softmax_scale=scale
    )
    return found[:, 0]


def _attend_masked(queries: DecodeQueries) -> torch.Tensor:
    """SDPA with a mask, the alternative to every kernel."""
    query, keys, values, lengths, scale = queries
    visible = torch.arange(keys.shape[1], device=query.device) < lengths[:, None]
    groups = query.shape[1] // keys.shape[2]
    return scaled_dot_product_attention(
        query.view(len(query), -1, groups, query.shape[-1]),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=visible[:, None, None],
        scale=scale,
    ).flatten(1, 2)


KERNELS: Mapping[str, Kernel] = {"varlen": _attend_varlen, "flash_attn": _attend_flash}


def choose_fastest(
    heads: Heads, dtype: torch.dtype, device: torch.device, *, as_graphs: bool
) -> str | None:
    """Returns the name of the kernel to use; None: SDPA with masks."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    found: dict[str, float] = {}
    try:
        found = time_kernels(heads, dtype, device, as_graphs=as_graphs)
    except Exception as error:  # noqa: BLE001 - an engine without kernels is a little slower
        log_events.NO_KERNELS.log(log, error=error)
    torch.cuda.empty_cache()  # a gigabyte, part of which the KV cache needs
    if not found:
        return None
    times = ", ".join(f"{name} {1e6 * taken:.0f} us" for name, taken in found.items())
    name = min(found, key=lambda one: found[one])
    log_events.KERNEL_CHOSEN.log(log, times=times, kernel=name)
    return None if name == "sdpa" else name


def time_kernels(
    heads: Heads,
    dtype: torch.dtype,
    device: torch.device,
    *,
    as_graphs: bool,
    batch: int = 16,
    positions: int = 4096,
) -> dict[str, float]:
    """Returns the seconds of one layer's attention by each kernel that is installed and right.

    Sequences attend to half of the positions, up to all. `sdpa` is always among the results.

    Arguments:
        as_graphs: time captured graphs; a kernel that cannot be captured is left out.
    """
    found = {}
    few = _make_random(heads, dtype, device, 4, 1024, shortest=1)
    many = _make_random(heads, dtype, device, batch, positions, shortest=positions // 2)
    exact = {name: getattr(few, name).float() for name in ("query", "keys", "values")}
    right = _attend_masked(few._replace(**exact))
    deviation = right.std(dim=(1, 2), keepdim=True)
    for name, kernel in {"sdpa": _attend_masked, **KERNELS}.items():
        try:
            error = ((kernel(few).float() - right).abs() / deviation).max()
            if not error <= _MAX_ERROR and name != "sdpa":  # NaN is not used either
                log_events.KERNEL_WRONG.log(log, kernel=name, fault=error)
                continue
            found[name] = _time(partial(kernel, many), device, as_graphs)
        except Exception as failure:
            if name == "sdpa" or isinstance(failure, torch.OutOfMemoryError):
                raise
            # Not installed, too old, or not for this GPU; `_finish` raises if it has broken the device.
            log_events.KERNEL_MISSING.log(log, kernel=name, error=failure)
            _finish(device)
    return found


def _make_random(
    heads: Heads,
    dtype: torch.dtype,
    device: torch.device,
    batch: int,
    positions: int,
    *,
    shortest: int,
) -> DecodeQueries:
    draw = torch.Generator(device).manual_seed(batch)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, device=device, dtype=dtype)

    # Positions lie as in the slot cache: those of a head side by side, and there are more than a step reads.
    keys, values = (
        random(batch, heads.keys, positions + PAGE, heads.dim)[:, :, :positions].transpose(1, 2)
        for _ in range(2)
    )
    lengths = torch.linspace(shortest, positions, batch, device=device).to(torch.int32)
    return DecodeQueries(random(batch, heads.queries, heads.dim), keys, values, lengths)


def _time(run: Callable[[], torch.Tensor], device: torch.device, as_graphs: bool) -> float:
    """Returns the seconds of one run on the device."""
    graphs = CudaGraphs(device, wanted=as_graphs, strict=True)

    def several() -> torch.Tensor:
        for _ in range(_REPEATS - 1):
            run()
        return run()

    seconds = 0.0
    for _ in range(2):
        _finish(device)
        begun = time.perf_counter()
        graphs.run("several", several)
        _finish(device)
        seconds = time.perf_counter() - begun  # the first one is a warm-up, or captures
    return seconds / _REPEATS


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
