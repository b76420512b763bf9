"""Decoder layers of the Llama kind with fewer passes over memory and fewer calls, on the checkpoint's own weights.

Query, key and value are one product, whose weights the three modules see as parts of it; so are gate and up on
a GPU, while on a CPU two products are faster. Query and key are rotated together, and what can be is computed in
place. Packed or quantized layers multiply by their own modules. For a prompt the last layer computes only
the rows that are asked for, as in `last_layer`.

A layer runs like this only if transformers' class is known here and a trial gives what its own forward pass gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import linear, rms_norm
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from videoqa_worker.engine.model.last_layer import KeptRows, find_text_layers

__all__ = ["FusedLayer", "install"]

_CLASSES = {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer"}
Product = Callable[[torch.Tensor], torch.Tensor]


def install(model: Any, *, joins_gate: bool | None = None) -> KeptRows | None:
    """Replaces the forward pass of the text model's layers; None if one is of a kind that is not known here.

    `attention.install` comes first. A model that is prepared already keeps its layers, with the attention of now.

    Arguments:
        joins_gate: gate and up are one product; None: on a GPU.
    """
    layers = find_text_layers(model)
    if not layers or any(type(layer).__name__ not in _CLASSES for layer in layers):
        return None
    attend = ALL_ATTENTION_FUNCTIONS[layers[0].self_attn.config._attn_implementation]
    present = [layer.forward for layer in layers if isinstance(layer.forward, FusedLayer)]
    for one in present:
        one.attend = attend
    if present:
        return present[-1].rows
    if joins_gate is None:
        joins_gate = model.device.type != "cpu"
    rotation = _Rotation()
    if not _is_right(layers[0], FusedLayer(layers[0], attend, rotation, joins_gate=False)):
        return None
    for layer in layers:
        layer.forward = FusedLayer(layer, attend, rotation, joins_gate=joins_gate, joins=True)
    layers[-1].forward.rows = rows = KeptRows()
    return rows


class FusedLayer:
    """The forward pass of one decoder layer."""

    def __init__(
        self,
        layer: Any,
        attend: Any,
        rotation: _Rotation,
        *,
        joins_gate: bool,
        joins: bool = False,
    ) -> None:
        """
        Arguments:
            joins: the layer's weights are put together; else it is left as it was.
        """
        self._attention, mlp = layer.self_attn, layer.mlp
        own = self._attention
        self.attend, self._rotation = attend, rotation
        self.rows: KeptRows | None = None
        """Rows that the last layer computes; None: all."""
        self._norms = layer.input_layernorm, layer.post_attention_layernorm
        self._dim: int = own.head_dim
        parts = [own.q_proj, own.k_proj, own.v_proj]
        self._products: list[Product] = [part.forward for part in parts]
        self._qkv = _join(parts) if joins else None
        self._sizes = [] if self._qkv is None else [len(part.weight) for part in parts]
        self._gate_up = _join([mlp.gate_proj, mlp.up_proj]) if joins and joins_gate else None
        self._output: Product = own.o_proj.forward
        self._gate: Product = mlp.gate_proj.forward
        self._up: Product = mlp.up_proj.forward
        self._down: Product = mlp.down_proj.forward
        self._activate: Product = mlp.act_fn.forward

    def __call__(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **more: Any,
    ) -> torch.Tensor:
        """Implements the layer's forward pass: returns [batch, tokens, d]."""
        assert position_embeddings is not None  # noqa: S101 - the model always gives them
        kept = None if self.rows is None else self.rows.indices
        normed = _normalize(hidden_states, self._norms[0])
        query, key, value = self._project(normed, position_embeddings, kept)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self._attention.layer_idx)
        if kept is not None and attention_mask is not None:
            # Without a mask, or with lengths (`attention`), only the last row is kept, which attends to all keys.
            lengths = attention_mask.dtype == torch.int32
            attention_mask = None if lengths else attention_mask[:, :, kept]
        scaling = self._attention.scaling
        found, _ = self.attend(
            self._attention, query, key, value, attention_mask, scaling=scaling, **more
        )
        before = hidden_states if kept is None else hidden_states[:, kept]
        hidden = self._output(found.flatten(2)).add_(before)
        hidden = self._feed_forward(_normalize(hidden, self._norms[1])).add_(hidden)
        if kept is None:
            return hidden
        whole = torch.zeros_like(hidden_states)
        whole[:, kept] = hidden
        return whole

    def _project(
        self,
        hidden: torch.Tensor,
        cos_sin: tuple[torch.Tensor, torch.Tensor],
        kept: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns query, key and value, [batch, heads, tokens, dim] each; the query of the kept rows."""
        cos, sin = self._rotation.prepare(*cos_sin)
        if kept is None and self._qkv is not None:
            heads = self._split(linear(hidden, *self._qkv))
            queries, keys, values = (size // self._dim for size in self._sizes)
            rotated = _rotate(heads[:, :, : queries + keys], cos, sin)
            query, key = rotated[:, :, :queries], rotated[:, :, queries:]
            value = heads[:, :, -values:]
        else:
            rows = slice(None) if kept is None else kept
            query = self._split(self._products[0](hidden[:, rows]))
            query = _rotate(query, cos[:, rows], sin[:, rows])
            key = _rotate(self._split(self._products[1](hidden)), cos, sin)
            value = self._split(self._products[2](hidden))
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def _split(self, heads: torch.Tensor) -> torch.Tensor:
        return heads.reshape(*heads.shape[:-1], -1, self._dim)

    def _feed_forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self._gate_up is None:
            return self._down(self._activate(self._gate(hidden)).mul_(self._up(hidden)))
        gate, up = linear(hidden, *self._gate_up).chunk(2, dim=-1)
        return self._down(self._activate(gate).mul_(up))


class _Rotation:
    """The rotation of a pass, which is the same in all layers."""

    def __init__(self) -> None:
        self._sin: torch.Tensor | None = None
        self._prepared: tuple[torch.Tensor, torch.Tensor] = torch.empty(0), torch.empty(0)

    def prepare(self, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns cosines, and sines whose first half is negative, [batch, tokens, 1, dim] each."""
        if sin is not self._sin:
            first, second = sin.chunk(2, dim=-1)
            self._prepared = cos[:, :, None], torch.cat((-first, second), dim=-1)[:, :, None]
            self._sin = sin
        return self._prepared


def _rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Returns [batch, tokens, heads, dim] rotated."""
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


def _normalize(hidden: torch.Tensor, norm: Any) -> torch.Tensor:
    """Returns hidden states by their root mean square."""
    if hidden.device.type != "cpu" or hidden.dtype != torch.float32:
        return rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)
    scale = hidden.square().mean(-1, keepdim=True).add_(norm.variance_epsilon).rsqrt_()
    return (hidden * scale).mul_(norm.weight)


def _join(parts: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Puts weights and biases of linear layers one behind the other, and makes their own ones views of that.

    Returns None if a layer multiplies in a way of its own (packed, quantized).
    """
    plain = all(
        type(part) is torch.nn.Linear
        and type(part.weight.data) is torch.Tensor  # others are quantized ones
        and "forward" not in vars(part)
        for part in parts
    )
    with_bias = {part.bias is not None for part in parts}
    if not plain or len(with_bias) > 1 or len({part.weight.dtype for part in parts}) > 1:
        return None
    weight = _join_parameters(parts, "weight")
    return weight, _join_parameters(parts, "bias") if with_bias == {True} else None


@torch.no_grad()
def _join_parameters(parts: Sequence[Any], name: str) -> torch.Tensor:
    own = [getattr(part, name) for part in parts]
    whole = torch.cat([one.detach() for one in own])
    for part, view in zip(parts, torch.split(whole, [len(one) for one in own]), strict=True):
        setattr(part, name, torch.nn.Parameter(view, requires_grad=False))
    return whole


@torch.inference_mode()
def _is_right(layer: Any, fused: FusedLayer) -> bool:
    """Returns True if both forward passes give the same for a few rows, but for rounding."""
    weight = layer.input_layernorm.weight
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand(1, 3, len(weight) + fused._dim, generator=generator).to(weight)
    hidden, angles = torch.split(draw, [len(weight), fused._dim], dim=-1)
    inputs: dict[str, Any] = {
        "position_embeddings": (angles.cos(), angles.sin()),
        "attention_mask": None,
    }
    try:
        expected, found = layer(hidden, **inputs), fused(hidden, **inputs)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
    allowed = 64 * torch.finfo(hidden.dtype).eps * expected.abs().max()
    return bool((found - expected).abs().max() <= allowed)
