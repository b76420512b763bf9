"""The last layer of a prompt computes only the rows whose logits are asked for.

All layers but the last need every position. Of the last one the others need keys and values alone, and no
hidden state of it is read but at the positions that get logits, mostly one. Its query and output projections, its
attention and its feed-forward network are then left out for all other rows, whose results are zeros: 5/6 of
the layer, so a prompt of a model with 12 layers costs 7 % less.

The modules stay the checkpoint's own: those that compute each row by itself get a `forward` that passes on the kept
rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

__all__ = ["KEPT_ROWS", "KeptRows", "find_text_layers", "install"]

KEPT_ROWS = "_videoqa_kept_rows"
"""Attribute of the last layer's attention that has its `KeptRows`."""


class KeptRows:
    """The rows that the last layer computes in the next pass."""

    def __init__(self) -> None:
        self.indices: torch.Tensor | None = None
        """int64[kept]; None: all rows."""

    @contextmanager
    def keep(self, indices: torch.Tensor | None) -> Iterator[None]:
        """Limits the passes within to these rows."""
        self.indices = indices
        try:
            yield
        finally:
            self.indices = None


def install(model: Any) -> KeptRows | None:
    """Prepares the text model's last layer; None if it is not built as those known here.

    A model that is prepared already keeps what it has.
    """
    layers = find_text_layers(model)
    return _install(layers[-1]) if layers else None


def find_text_layers(model: Any) -> list[Any]:
    """Returns the layers of the text model; none if it is not built as those known here."""
    config = model.config.get_text_config()
    for module in model.modules():
        layers = getattr(module, "layers", None)
        if getattr(module, "config", None) is config and isinstance(layers, torch.nn.ModuleList):
            return [*layers]
    return []


def _install(layer: Any) -> KeptRows | None:
    attention = getattr(layer, "self_attn", None)
    parts = [getattr(attention, name, None) for name in ("q_proj", "o_proj")]
    parts.append(getattr(layer, "mlp", None))
    if not all(isinstance(part, torch.nn.Module) for part in parts):
        return None
    present = getattr(attention, KEPT_ROWS, None)
    if present is not None:
        assert isinstance(present, KeptRows)  # noqa: S101 - nobody else uses this name
        return present
    rows = KeptRows()
    for part in parts:
        assert part is not None  # noqa: S101 - checked above
        part.forward = partial(_forward, part, part.forward, rows)
    setattr(attention, KEPT_ROWS, rows)
    return rows


def _forward(
    part: Any, plain: Any, rows: KeptRows, hidden: torch.Tensor, *args: Any, **kwargs: Any
) -> Any:
    """Computes the kept rows of [batch, rows, d] by the module's own `forward`."""
    if rows.indices is None:
        return plain(hidden, *args, **kwargs)
    found = plain(hidden[:, rows.indices], *args, **kwargs)
    if not isinstance(found, torch.Tensor):  # some mixtures of experts return more than that
        part.forward = plain
        return plain(hidden, *args, **kwargs)
    whole = found.new_zeros(*hidden.shape[:-1], found.shape[-1])
    whole[:, rows.indices] = found
    return whole
