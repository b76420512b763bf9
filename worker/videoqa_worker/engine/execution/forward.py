"""Forward passes over slots: prefill by chunks, or one decode step of all sequences.

Knows nothing of requests or scheduling.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from videoqa_worker.engine.device.cuda_graphs import CudaGraphs
from videoqa_worker.engine.kvcache.positions import DecodeInput, KVPosition
from videoqa_worker.engine.kvcache.slot_cache import SlotCache
from videoqa_worker.engine.model import attention, fused_layers, kernels, last_layer
from videoqa_worker.engine.model.kv_shape import KVShape
from videoqa_worker.engine.model.layer_masks import LayerMasks, Masks
from videoqa_worker.engine.model.rotary_positions import shape_position_ids
from videoqa_worker.engine.sequence.prefill import Prefill
from videoqa_worker.settings import EngineConfig

__all__ = ["ForwardPass"]

_REACH = {"cuda": 512, "cpu": 64}
"""Attention's reach is rounded up to it, so that one graph serves so many steps."""
_FREE = 256
"""Positions of a decode step on a GPU; a single pass for all sequences also needs fewer graphs."""
_PROMPT = 64
"""Prompts are padded to a multiple of it where they run as graphs; no more than `SLOT_STEP`."""


class ForwardPass:
    """Runs one model on the slots of its KV cache; used by the engine's thread."""

    def __init__(
        self,
        model: Any,
        graphs: CudaGraphs,
        shape: KVShape,
        masks: LayerMasks,
        config: EngineConfig,
    ) -> None:
        self._model, self._graphs, self._masks = model, graphs, masks
        self._device: torch.device = model.device
        self._invariant = config.batch_invariant
        self._unmasked = self._can_skip_masks(config)
        self._kernel = self._choose_kernel(shape, config) if self._unmasked else None
        attention.install(model, self._kernel)
        self._kept_rows: last_layer.KeptRows | None = None
        fixed = self._invariant or self._device.type != "cpu"  # not tried on a GPU
        kept_rows = fused_layers.install(model)
        if not fixed:
            self._kept_rows = kept_rows or last_layer.install(model)
        self.cache = SlotCache(shape, config.max_batch_tokens, model.dtype, self._device)

    def _can_skip_masks(self, config: EngineConfig) -> bool:
        """Returns True if attention may run on kernels without masks, see `attention`."""
        free = config.attn_implementation is None and not config.batch_invariant
        free &= self._masks.is_plain
        return free and self._device.type == "cuda"

    def _choose_kernel(self, shape: KVShape, config: EngineConfig) -> str | None:
        queries = self._model.config.get_text_config().num_attention_heads
        heads = kernels.Heads(queries, shape[1], shape[2])
        dtype, graphs = self._model.dtype, config.cuda_graphs
        return kernels.choose_fastest(heads, dtype, self._device, as_graphs=graphs)

    @property
    def free_positions(self) -> int:
        """Positions that a pass computes at the cost of one: reading the weights takes the time."""
        return _FREE if self._graphs.enabled else 0

    # Prefill

    def prefill_chunk(
        self, prefill: Prefill, position: KVPosition, most: int
    ) -> torch.Tensor | None:
        """Computes up to `most` positions of a prompt.

        Returns the logits after its last position, float[1, vocabulary]; None before that.
        """
        whole = not prefill.done and prefill.length <= most and not self._invariant
        if self._graphs.enabled and whole and prefill.has_embeddings and self._masks.is_plain:
            return self._prefill_whole(prefill, position.slot)
        start, end = prefill.done, min(prefill.length, prefill.done + most)
        if self._invariant and start < prefill.prefix_length:
            end = min(end, prefill.prefix_length)  # a cached prefix was computed in this shape
        end = prefill.find_end(end)
        with self._without_cudnn(), self._keep_rows(torch.tensor([end - start - 1])):
            logits: torch.Tensor = self._model(
                **prefill.build_input(end),
                attention_mask=self._make_mask(prefill, position, start, end),
                position_ids=self._send_positions(prefill.positions.prompt[:, start:end]),
                past_key_values=self.cache.for_prefill(position.slot, position.locate(start)),
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        prefill.done, prefill.rest = end, prefill.rest[:, end - start :]
        return logits if end == prefill.length else None

    def _make_mask(
        self, prefill: Prefill, position: KVPosition, start: int, end: int
    ) -> Masks | None:
        """Returns the mask of a prefill chunk; None at the beginning, where it attends only to itself."""
        if not start and self._masks.is_plain:
            return None
        first, behind = position.locate(start), position.locate(end - 1) + 1
        if end - start > 1 and self._unmasked and (first, behind) == (start, end):
            return attention.encode_lengths(torch.tensor([end]))
        positions = torch.arange(first, behind, device=self._device)
        blocks = None if prefill.blocks is None else self._send(prefill.blocks)
        region = position.start, position.prefix_length
        return self._masks.build(behind, positions[None], *region, blocks)

    def prefill_packed(
        self, prefills: Sequence[Prefill], positions: Sequence[KVPosition]
    ) -> torch.Tensor:
        """Computes the rest of several prompts in one slot, which is text only.

        Returns the logits after the last position of each, float[prompts, vocabulary].
        """
        spans = [torch.arange(prefill.done, prefill.length) for prefill in prefills]
        counts = torch.tensor([len(span) for span in spans])
        prefix, start = (
            torch.tensor(each).repeat_interleave(counts)
            for each in zip(*((one.prefix_length, one.start) for one in positions), strict=True)
        )
        at = start + torch.cat(spans) - prefix
        rests = torch.cat([prefill.rest[0] for prefill in prefills])
        rotary = torch.cat(
            [prefill.positions.prompt[:, prefill.done : prefill.length] for prefill in prefills], 1
        )
        reach = max(
            position.locate(prefill.length - 1) + 1
            for prefill, position in zip(prefills, positions, strict=True)
        )
        keep = counts.cumsum(0) - 1
        at, start, prefix, keep = map(self._send, (at, start, prefix, keep))
        with self._without_cudnn(), self._keep_rows(keep):
            logits = self._run_tokens(
                positions[0].slot,
                reach,
                rests[None],
                at[None],
                start[None],
                prefix[None],
                self._send_positions(rotary),
                keep=keep,
            )[0]
        for prefill in prefills:
            prefill.done, prefill.rest = prefill.length, prefill.rest[:, :0]
        return logits

    def _send_positions(self, positions: torch.Tensor) -> torch.Tensor:
        """Copies rotary positions of one sequence, int64[axes, n], in the shape that models take."""
        return self._send(shape_position_ids(positions))

    def _send(self, numbers: torch.Tensor) -> torch.Tensor:
        """Copies to the device without waiting for its earlier work."""
        return numbers.to(self._device, non_blocking=True)

    def _keep_rows(self, rows: torch.Tensor) -> AbstractContextManager[None]:
        """Computes only these rows in the last layer, where that is possible."""
        return nullcontext() if self._kept_rows is None else self._kept_rows.keep(rows)

    def _without_cudnn(self) -> AbstractContextManager[None]:
        """Excludes cuDNN's attention, the default on some GPUs.

        It prepares itself for each new shape, 0.85 s on an H200, and prompts have many shapes.
        """
        if self._device.type != "cuda":
            return nullcontext()
        return sdpa_kernel(
            [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        )

    def _prefill_whole(self, prefill: Prefill, slot: int) -> torch.Tensor:
        """Computes a whole prompt as a graph. Its padding is masked, then overwritten."""
        longest = -(-prefill.length // _PROMPT) * _PROMPT
        padded = prefill.rest.new_zeros(1, longest, prefill.rest.shape[-1])
        padded[:, : prefill.length] = prefill.rest
        numbers = self._send(torch.tensor([[slot], [prefill.length - 1]]))
        positions = prefill.positions.prompt
        rotary = positions.new_zeros(len(positions), longest)
        rotary[:, : prefill.length] = positions
        inputs = padded, self._send_positions(rotary), numbers[0], numbers[1]
        logits = self._graphs.run(("prefill", longest), self._run_prompt, *inputs)
        prefill.done, prefill.rest = prefill.length, prefill.rest.new_empty(1, 0)
        return logits

    def _run_prompt(
        self,
        embeddings: torch.Tensor,
        position_ids: torch.Tensor,
        slot: torch.Tensor,
        last: torch.Tensor,
    ) -> torch.Tensor:
        logits: torch.Tensor = self._model(
            inputs_embeds=embeddings,
            position_ids=position_ids,
            past_key_values=self.cache.for_prefill(slot, 0),
            use_cache=True,
            logits_to_keep=last,
        ).logits
        return _take_rows(logits, last)[:, -1]

    # Decode

    def decode(
        self, first: int, slots: Sequence[Sequence[DecodeInput]], *, min_slots: int = 1
    ) -> torch.Tensor:
        """Returns the next logits of each sequence, float[sequences, vocabulary], slot by slot.

        Arguments:
            first: index of the first slot.
            slots: inputs of each slot from that one on; some have none.
            min_slots: slots of the pass where its shape must not change.
        """
        scratch = DecodeInput(0, self.cache.length - 1, 0, 0, 0)
        count, each = len(slots), max(map(len, slots))
        if self._invariant:
            count = min_slots
        elif self._graphs.enabled:
            count = min(_round_to_power(count), self.cache.slots - first)
            each = _round_to_power(each)
        padded = [[*slot, *[scratch] * (each - len(slot))] for slot in slots]
        padded += [[scratch] * each] * (count - len(slots))
        reach = max(self.round_reach(one.position + 1) for slot in slots for one in slot)
        numbers = self._send(torch.tensor(padded).permute(2, 0, 1))
        varlen = self._kernel is not None and reach % kernels.PAGE == 0 and each == 1
        varlen &= all(one.start == one.prefix_length for slot in slots for one in slot)
        key = "decode", count, each, first, reach, varlen
        step = partial(self._run_tokens, first, reach, keep=each, varlen=varlen)
        logits = self._graphs.run(key, step, *numbers)
        if all(len(slot) == each for slot in slots):
            return logits[: len(slots)].flatten(0, 1)
        return torch.cat([part[: len(slot)] for part, slot in zip(logits, slots, strict=False)])

    def round_reach(self, positions: int) -> int:
        """Returns how many positions attention reads for a sequence of this length, if it is alone."""
        step = _REACH.get(self._device.type, _REACH["cpu"])
        if self._invariant:  # sequences of one reach run together: there must be few reaches
            step = max(step, _round_to_power(positions) // 2)
        return min(self.cache.length, -(-positions // step) * step)

    def _run_tokens(
        self,
        first: int,
        reach: int,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        start: torch.Tensor,
        prefix_length: torch.Tensor,
        position_ids: torch.Tensor,
        *,
        keep: int | torch.Tensor,
        varlen: bool = False,
    ) -> torch.Tensor:
        """Runs tokens at any positions of contiguous slots, int64[slots, tokens of each] all four.

        Returns the logits, float[slots, kept of each, vocabulary].

        Arguments:
            position_ids: rotary positions, of the same shape, or with axes before it.
            varlen: each token is the only one of its slot, and attends to all positions before it.
        """
        if varlen:  # padding, which lies in scratch, attends to one position
            lengths = torch.where(positions < reach, positions + 1, 1)[:, 0]
            mask: Masks = attention.encode_lengths(lengths)
        else:
            mask = self._masks.build(reach, positions, start[..., None], prefix_length[..., None])
        logits: torch.Tensor = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=self.cache.for_decode(first, positions, reach),
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits if isinstance(keep, int) else _take_rows(logits, keep)


def _take_rows(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Returns the logits of the rows that were asked for: some models (VideoLLaMA3) compute those of all."""
    return logits if logits.shape[1] == len(rows) else logits[:, rows]


def _round_to_power(count: int) -> int:
    """Returns the least power of two that is no less than `count`."""
    return 1 << (count - 1).bit_length()
