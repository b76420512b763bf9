"""Forward passes over slots: a prompt piece by piece, or one token of every row.

Pictures become features by the model's own encoder and stand in the prompt's embeddings, so a
prompt can be cut anywhere. Features, and the keys and values of a prompt up to its last picture,
are kept for the next question about the same pictures. Knows nothing of who waits and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from videoqa_worker.engine import attention, kernels, vision
from videoqa_worker.engine.config import EngineConfig
from videoqa_worker.engine.faults import fault_of
from videoqa_worker.engine.graphs import Graphs
from videoqa_worker.engine.kv import KvShape, SlotCache, token_bytes
from videoqa_worker.engine.load import Loaded
from videoqa_worker.engine.memory import kept_bytes, kv_tokens
from videoqa_worker.engine.request import Ticket
from videoqa_worker.engine.reuse import Kept, prefix_digest

__all__ = ["Last", "Passes", "Place", "Prompt"]

_REACH = {"cuda": 512, "cpu": 64}
"""Attention's reach is rounded up to it: one graph serves so many steps."""
_FREE = 256
"""Positions of a decode step on a GPU; one pass for all rows also needs fewer graphs."""
_PROMPT = 64
"""Prompts are rounded up to it, where they run as graphs. No more than slots: see `_LENGTHS`."""


@dataclass(frozen=True)
class Place:
    """Where the positions of a row lie: the first `shared` at the beginning of a slot, the others from
    `start` on."""

    slot: int
    start: int = 0
    shared: int = 0

    def at(self, position: int) -> int:
        return position if position < self.shared else self.start + position - self.shared


@dataclass(frozen=True)
class Last:
    """The last token of a row, where it goes in its slot, and which positions the row sees."""

    token: int
    at: int
    start: int
    shared: int


@dataclass
class Prompt:
    """One on its way in."""

    length: int
    done: int = 0
    """Positions that are there."""
    embeddings: torch.Tensor | None = None
    """[1, length - those restored, d]; None: text only, `ids` say it."""
    ids: torch.Tensor | None = None
    prefix: int = 0
    """Positions up to the last picture, if they may be kept."""
    key: bytes = b""
    """Under which the prefix is to be kept; empty: it is kept already, or not to be."""


class Passes:
    """Of one model, on the engine's thread."""

    def __init__(self, loaded: Loaded, shape: KvShape, config: EngineConfig) -> None:
        self._model = loaded.model
        self._device: torch.device = loaded.model.device
        dtype = self._model.dtype
        self._unmasked = self._spares_masks(config)
        self._kernel = self._fastest(shape, config) if self._unmasked else None
        attention.install(loaded.model, self._kernel)
        tokens = kv_tokens(config.max_batch_tokens, token_bytes(shape, dtype), self._device)
        self.cache = SlotCache(shape, tokens, dtype, self._device)
        self.features: Kept[vision.Flat] = Kept(
            kept_bytes(config.feature_cache_bytes, self._device)
        )
        self.prefixes: Kept[list[torch.Tensor]] = Kept(
            kept_bytes(config.prefix_cache_bytes, self._device)
        )
        self._invariant = config.batch_invariant
        self._graphs = Graphs(self._device, wanted=config.cuda_graphs)

    def _spares_masks(self, config: EngineConfig) -> bool:
        """Where kernels can do without, see `attention`."""
        chosen = config.attn_implementation is None and not config.batch_invariant
        return chosen and self._device.type == "cuda"

    def _fastest(self, shape: KvShape, config: EngineConfig) -> str | None:
        queries = self._model.config.get_text_config().num_attention_heads
        heads = kernels.Heads(queries, shape[1], shape[2])
        dtype, graphs = self._model.dtype, config.cuda_graphs
        return kernels.fastest(heads, dtype, self._device, as_graphs=graphs)

    @property
    def free_positions(self) -> int:
        """A pass over so many costs no more than one over fewer: reading the weights is what takes time."""
        return _FREE if self._graphs.on else 0

    @property
    def keeps(self) -> bool:
        """Whether anything is."""
        return self.features.takes(1) or self.prefixes.takes(1)

    def arrange(self, length: int, used: Sequence[int]) -> None:
        """See `SlotCache.arrange`."""
        self._graphs.forget()
        self.cache.arrange(length, used)

    def let_go(self) -> bool:
        """Frees what is kept; False if nothing was."""
        return self.prefixes.clear() | self.features.clear()

    # A prompt

    def beginning(self, ticket: Ticket) -> tuple[bytes, int]:
        """A digest of the prompt up to its last picture, and the positions of that; (b"", 0) if there
        are no pictures, or nobody cares which are equal."""
        if ticket.beginning is None:
            inputs, length, key = ticket.request.inputs, 0, b""
            placed = vision.placeholders(self._model, inputs)
            if placed.any() and ticket.media:
                # The last position's scores are the first token: it is always computed.
                length = min(int(placed.nonzero()[-1]) + 1, inputs.length - 1)
                key = prefix_digest(inputs, ticket.media, length)
            ticket.beginning = key, length
        return ticket.beginning

    def open(self, ticket: Ticket, place: Place, *, beside: bool) -> Prompt:
        """What is left to be computed of a prompt.

        Arguments:
            beside: its beginning is there, as that of another row.
        """
        inputs = ticket.request.inputs
        prompt = Prompt(inputs.length)
        key, length = self.beginning(ticket)
        if beside:
            prompt.done = length
        elif key and self.prefixes.takes(1):
            prompt.prefix, prompt.key = length, key
            saved = self.prefixes.get(key)
            if saved is not None:
                self.cache.restore(place.slot, saved)
                prompt.done, prompt.key = length, b""
        placed = vision.placeholders(self._model, inputs)
        if placed[prompt.done :].any():
            whole = vision.embedded(self._model, inputs, self._features(ticket))
            prompt.embeddings = whole[:, prompt.done :]
        else:
            prompt.ids = inputs.input_ids[:, prompt.done :].to(self._device)
        return prompt

    def _features(self, ticket: Ticket) -> vision.Flat:
        kept = self.features.get(ticket.media) if ticket.media else None
        if kept is None:
            kept = vision.flat(vision.encode(self._model, ticket.request.inputs, self._graphs))
            if ticket.media:
                size = sum(part.numel() * part.element_size() for part in kept.values())
                self.features.put(ticket.media, kept, size)
        return kept

    def advance(self, prompt: Prompt, place: Place, most: int) -> torch.Tensor | None:
        """Computes up to so many positions; the scores, float[1, vocabulary], after the last."""
        whole = not prompt.done and prompt.length <= most and not self._invariant
        if self._graphs.on and whole and prompt.embeddings is not None:
            return self._whole(prompt, place.slot, prompt.embeddings)
        start, end = prompt.done, min(prompt.length, prompt.done + most)
        if self._invariant and start < prompt.prefix:
            end = min(end, prompt.prefix)  # what is kept ends there, and was computed so
        given = "input_ids" if prompt.ids is not None else "inputs_embeds"
        rest = prompt.ids if prompt.ids is not None else prompt.embeddings
        assert rest is not None  # noqa: S101 - one of the two, by construction
        piece, later = rest[:, : end - start], rest[:, end - start :]
        first, behind = place.at(start), place.at(end - 1) + 1
        mask = None
        if start and end - start > 1 and self._unmasked and (first, behind) == (start, end):
            mask = attention.lengths(torch.tensor([end]))
        elif start:
            at = torch.arange(first, behind, device=self._device)
            mask = _seen(behind, at, place.start, place.shared)[None, None]
        with self._any_shape():
            scores: torch.Tensor = self._model(
                **{given: piece},
                attention_mask=mask,
                position_ids=torch.arange(start, end, device=self._device)[None],
                past_key_values=self.cache.for_prompt(place.slot, first),
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        prompt.done = end
        if prompt.ids is not None:
            prompt.ids = later
        else:
            prompt.embeddings = later
        return scores if end == prompt.length else None

    def together(self, prompts: Sequence[Prompt], places: Sequence[Place]) -> torch.Tensor:
        """Computes all that is left of prompts in one slot, which are `ids` alone; the scores,
        float[prompts, vocabulary], after the last of each."""
        spans = [
            torch.arange(prompt.done, prompt.length, device=self._device) for prompt in prompts
        ]
        shared = torch.tensor([place.shared for place in places], device=self._device)
        start = torch.tensor([place.start for place in places], device=self._device)
        counts = torch.tensor([len(span) for span in spans], device=self._device)
        shared, start = shared.repeat_interleave(counts), start.repeat_interleave(counts)
        positions = torch.cat(spans)
        rests = torch.cat([prompt.ids[0] for prompt in prompts if prompt.ids is not None])
        at = start + positions - shared
        behind = max(
            place.at(prompt.length - 1) + 1 for prompt, place in zip(prompts, places, strict=True)
        )
        with self._any_shape():
            scores = self._placed(
                places[0].slot,
                behind,
                *(each[None] for each in (rests, at, start, shared)),
                keep=counts.cumsum(0) - 1,
            )[0]
        for prompt in prompts:
            prompt.done, prompt.ids = prompt.length, None
        return scores

    def keep(self, prompt: Prompt, slot: int) -> None:
        """Of a complete prompt, what the next question about its pictures can use."""
        size = prompt.prefix * self.cache.token_bytes
        if prompt.key and self.prefixes.takes(size):
            saved = self._saved(prompt, slot)
            if saved is not None:
                self.prefixes.put(prompt.key, saved, size)

    def _saved(self, prompt: Prompt, slot: int) -> list[torch.Tensor] | None:
        """None where there is no memory: the answer does without."""
        try:
            return self.cache.save(slot, prompt.prefix)
        except Exception as error:
            if not fault_of(error).memory:
                raise
        return None

    def _any_shape(self) -> AbstractContextManager[None]:
        """cuDNN's attention, the default on some GPUs, prepares itself for each new shape: 0.85 s on
        an H200. Prompts have many shapes."""
        if self._device.type != "cuda":
            return nullcontext()
        return sdpa_kernel(
            [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        )

    def _whole(self, prompt: Prompt, slot: int, embeddings: torch.Tensor) -> torch.Tensor:
        """All of a prompt as a graph. What is filled up behind it is masked, then overwritten."""
        longest = -(-prompt.length // _PROMPT) * _PROMPT
        filled = embeddings.new_zeros(1, longest, embeddings.shape[-1])
        filled[:, : prompt.length] = embeddings
        places = torch.tensor([[slot], [prompt.length - 1]]).to(self._device)
        key = "prompt", longest
        scores = self._graphs.run(key, self._prompt_pass, filled, places[0], places[1])
        prompt.done, prompt.embeddings = prompt.length, None
        return scores

    def _prompt_pass(
        self, embeddings: torch.Tensor, slot: torch.Tensor, last: torch.Tensor
    ) -> torch.Tensor:
        scores: torch.Tensor = self._model(
            inputs_embeds=embeddings,
            position_ids=torch.arange(embeddings.shape[1], device=self._device)[None],
            past_key_values=self.cache.for_prompt(slot, 0),
            use_cache=True,
            logits_to_keep=last,
        ).logits[:, -1]
        return scores

    # Rows

    def decode(self, first: int, rows: Sequence[Sequence[Last]], *, least: int = 1) -> torch.Tensor:
        """The next scores of each row, float[rows, vocabulary], slot by slot.

        Arguments:
            first: number of the first slot.
            rows: of each slot from that one on; some have none.
            least: so many slots the pass has, where its shape must not change.
        """
        scratch = Last(0, self.cache.length - 1, 0, 0)
        slots, each = len(rows), max(map(len, rows))
        if self._invariant:
            slots = least
        elif self._graphs.on:
            slots = min(_power_of_two(slots), self.cache.slots - first)
            each = _power_of_two(each)
        filled = [[*slot, *[scratch] * (each - len(slot))] for slot in rows]
        filled += [[scratch] * each] * (slots - len(rows))
        numbers = [[[row.token, row.at, row.start, row.shared] for row in slot] for slot in filled]
        reach = max(self.reach(row.at + 1) for slot in rows for row in slot)
        placed = torch.tensor(numbers).permute(2, 0, 1).to(self._device, non_blocking=True)
        by_length = self._kernel is not None and reach % kernels.PAGE == 0 and each == 1
        by_length &= all(row.start == row.shared for slot in rows for row in slot)
        key = "rows", slots, each, first, reach, by_length
        step = partial(self._placed, first, reach, keep=each, by_length=by_length)
        scores = self._graphs.run(key, step, *placed)
        if all(len(slot) == each for slot in rows):
            return scores[: len(rows)].flatten(0, 1)
        return torch.cat([part[: len(slot)] for part, slot in zip(scores, rows, strict=False)])

    def reach(self, positions: int) -> int:
        """How far attention looks for a row of so many positions, if it is by itself."""
        step = _REACH.get(self._device.type, _REACH["cpu"])
        if self._invariant:  # rows of one reach run together: there are to be few
            step = max(step, _power_of_two(positions) // 2)
        return min(self.cache.length, -(-positions // step) * step)

    def _placed(
        self,
        first: int,
        reach: int,
        tokens: torch.Tensor,
        at: torch.Tensor,
        start: torch.Tensor,
        shared: torch.Tensor,
        *,
        keep: int | torch.Tensor,
        by_length: bool = False,
    ) -> torch.Tensor:
        """Tokens anywhere in a stretch of slots, int64[slots, tokens of each] all four; the scores,
        float[slots, kept of each, vocabulary].

        Arguments:
            by_length: each is the only one of its slot, and sees all that is before it.
        """
        if by_length:  # those in scratch, which only fill up, see one position
            seen = attention.lengths(torch.where(at < reach, at + 1, 1)[:, 0])
        else:
            seen = _seen(reach, at, start[..., None], shared[..., None])[:, None]
        scores: torch.Tensor = self._model(
            input_ids=tokens,
            attention_mask=seen,
            position_ids=at - start + shared,
            past_key_values=self.cache.for_tokens(first, at, reach),
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return scores


def _seen(
    reach: int, at: torch.Tensor, start: int | torch.Tensor, shared: int | torch.Tensor
) -> torch.Tensor:
    """bool[..., reach]: which positions of its slot a token sees, that is at `at`, int64[...]: what is
    shared, and what is its row's own up to itself."""
    places = torch.arange(reach, device=at.device)
    return ((places < shared) | (places >= start)) & (places <= at[..., None])


def _power_of_two(count: int) -> int:
    """The least that is no less."""
    return 1 << (count - 1).bit_length()
