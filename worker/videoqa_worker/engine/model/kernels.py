"""Attention of single queries over slots, each as far as its row is long: no mask, and nothing read
behind a row's end.

Two kernels can do that on CUDA: torch's `varlen_attn`, for which a slot is a page, and flash-attn's
`flash_attn_with_kvcache`, where that package is installed. Which of them is here, right and faster than
SDPA with a mask is not looked up but tried, once at the start, on numbers like those of a step.
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

from videoqa_worker.engine.device.cuda_graphs import Graphs

__all__ = ["KERNELS", "PAGE", "Heads", "Rows", "fastest", "seconds"]

log = logging.getLogger(__name__)

PAGE = 256
"""Positions are a multiple of it: FlashAttention 2 reads pages of no other size."""
_FAR = 0.1
"""Of the deviation of what is right for a row. What 16 bits round away is a tenth of that; a short row that sees
a key too many is far beyond it."""
_TIMES = 20


@dataclass(frozen=True)
class Heads:
    """Of a text model's layer."""

    queries: int
    keys: int
    dim: int


class Rows(NamedTuple):
    """Single queries, and what they look at."""

    query: torch.Tensor
    """[rows, heads, dim]."""
    keys: torch.Tensor
    """[rows, positions, key heads, dim], as the values."""
    values: torch.Tensor
    lengths: torch.Tensor
    """int32[rows]: how many of the positions each row sees."""
    scale: float | None = None
    """What scores are multiplied with."""


Kernel = Callable[[Rows], torch.Tensor]
"""To [rows, heads, dim]."""


def _varlen(rows: Rows) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, keys, values, lengths, scale = rows
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
        # Left to choose, FlashAttention 2 gives not-a-number now and then (torchtitan#3235).
        num_splits=1,
    )
    assert isinstance(found, torch.Tensor)  # noqa: S101 - nothing else was asked for
    return found


def _flash_attn(rows: Rows) -> torch.Tensor:
    from flash_attn import flash_attn_with_kvcache

    query, keys, values, lengths, scale = rows
    found: torch.Tensor = flash_attn_with_kvcache(
        query[:, None], keys, values, cache_seqlens=lengths, softmax_scale=scale
    )
    return found[:, 0]


def _masked(rows: Rows) -> torch.Tensor:
    """What is done otherwise."""
    query, keys, values, lengths, scale = rows
    seen = torch.arange(keys.shape[1], device=query.device) < lengths[:, None]
    groups = query.shape[1] // keys.shape[2]
    return scaled_dot_product_attention(
        query.view(len(query), -1, groups, query.shape[-1]),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=seen[:, None, None],
        scale=scale,
    ).flatten(1, 2)


KERNELS: Mapping[str, Kernel] = {"varlen": _varlen, "flash_attn": _flash_attn}


def fastest(
    heads: Heads, dtype: torch.dtype, device: torch.device, *, as_graphs: bool
) -> str | None:
    """The one to use here; None: SDPA with masks."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    found: dict[str, float] = {}
    try:
        found = seconds(heads, dtype, device, as_graphs=as_graphs)
    except Exception as error:  # noqa: BLE001 - an engine without them is a little slower, and none is worse
        log.warning(
            "kernels for attention cannot be tried, steps go with masks; "
            "VIDEOQA_ATTN_IMPLEMENTATION=sdpa tries none: %s",
            error,
        )
    torch.cuda.empty_cache()  # a gigabyte, of which the keys and values of rows are to have their share
    if not found:
        return None
    told = ", ".join(f"{name} {1e6 * taken:.0f} us" for name, taken in found.items())
    name = min(found, key=lambda one: found[one])
    log.info("attention of a step's layer takes %s: %s it is", told, name)
    return None if name == "sdpa" else name


def seconds(
    heads: Heads,
    dtype: torch.dtype,
    device: torch.device,
    *,
    as_graphs: bool,
    rows: int = 16,
    positions: int = 4096,
) -> dict[str, float]:
    """What a layer's attention takes for rows that see half of the positions to all, by each kernel that is
    there and right; `sdpa` is always among them, or cannot be tried.

    Arguments:
        as_graphs: steps are captured, so what cannot be is of no use.
    """
    found = {}
    few = _random(heads, dtype, device, 4, 1024, shortest=1)
    many = _random(heads, dtype, device, rows, positions, shortest=positions // 2)
    exact = {name: getattr(few, name).float() for name in ("query", "keys", "values")}
    right = _masked(few._replace(**exact))
    deviation = right.std(dim=(1, 2), keepdim=True)
    for name, kernel in {"sdpa": _masked, **KERNELS}.items():
        try:
            off = ((kernel(few).float() - right).abs() / deviation).max()
            if not off <= _FAR and name != "sdpa":  # nor is not-a-number
                log.warning("attention by %s is off by %.2g: it is not used", name, off)
                continue
            found[name] = _timed(partial(kernel, many), device, as_graphs)
        except Exception as error:
            if name == "sdpa" or isinstance(error, torch.OutOfMemoryError):
                raise
            # Not installed, too old, not for this GPU: unless it has broken the device for all that follows.
            log.debug("no attention by %s: %s", name, error)
            _finish(device)
    return found


def _random(
    heads: Heads,
    dtype: torch.dtype,
    device: torch.device,
    rows: int,
    positions: int,
    *,
    shortest: int,
) -> Rows:
    draw = torch.Generator(device).manual_seed(rows)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, device=device, dtype=dtype)

    # As slots lie in the cache: a head's positions side by side, and more of them than a step reads.
    keys, values = (
        random(rows, heads.keys, positions + PAGE, heads.dim)[:, :, :positions].transpose(1, 2)
        for _ in range(2)
    )
    lengths = torch.linspace(shortest, positions, rows, device=device).to(torch.int32)
    return Rows(random(rows, heads.queries, heads.dim), keys, values, lengths)


def _timed(run: Callable[[], torch.Tensor], device: torch.device, as_graphs: bool) -> float:
    """Of one, on the device."""
    graphs = Graphs(device, wanted=as_graphs, strict=True)

    def several() -> torch.Tensor:
        for _ in range(_TIMES - 1):
            run()
        return run()

    seconds = 0.0
    for _ in range(2):
        _finish(device)
        begun = time.perf_counter()
        graphs.run("several", several)
        _finish(device)
        seconds = time.perf_counter() - begun  # the first one is a warm-up, or captures
    return seconds / _TIMES


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
