"""Earlier positions that the layers of a text model attend to: all of them, or those in a sliding window.

Slots hold the whole sequence for each layer, so a window limits attention, not memory. Some models let the tokens of a
picture attend to each other in both directions (Gemma 3). Masks are given by type of layer, as transformers'
`create_masks_for_generate` makes them, and are compared with what it makes for a prompt that is longer than the window.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.masking_utils import create_masks_for_generate

from videoqa_worker.prompt import ModelInputs

__all__ = ["LayerMasks", "Masks", "find_layer_masks", "mask_visible"]

_FULL, _SLIDING = "full_attention", "sliding_attention"

Masks = torch.Tensor | dict[str, torch.Tensor]
"""bool[slots, 1, tokens, reach] by type of layer, or one for all layers."""


@dataclass(frozen=True)
class LayerMasks:
    """Attention of the layers of one text model."""

    windows: Mapping[str, int | None] = field(default_factory=lambda: {"": None})
    """Positions that each type of layer attends to, its own included; None: all. A type without a name: all layers."""
    has_blocks: bool = False
    """True if the tokens of a picture attend to each other in both directions."""

    @property
    def is_plain(self) -> bool:
        """True if all layers attend to all earlier positions and to nothing else."""
        return not self.has_blocks and not any(self.windows.values())

    def find_blocks(self, inputs: ModelInputs) -> torch.Tensor | None:
        """Returns int64[L] on the CPU: a number for each picture of the prompt, -1 for text; None: nothing needs it."""
        if not self.has_blocks:
            return None
        (kinds,) = inputs.token_inputs.values()
        shown = kinds[0] == 1
        begins = shown & ~shown.roll(1)
        begins[0] = shown[0]
        return torch.where(shown, begins.cumsum(0) - 1, -1)

    def build(
        self,
        reach: int,
        positions: torch.Tensor,
        start: int | torch.Tensor,
        prefix_length: int | torch.Tensor,
        blocks: torch.Tensor | None = None,
    ) -> Masks:
        """Returns bool[slots, 1, tokens, reach] by type of layer, or one for all layers.

        Arguments:
            positions: int64[slots, tokens], in the slot; see `mask_visible`.
        """
        masks = {
            kind: mask_visible(reach, positions, start, prefix_length, window, blocks)[:, None]
            for kind, window in self.windows.items()
        }
        return masks.get("", masks)


def find_layer_masks(model: Any, build_trial: Callable[[], ModelInputs]) -> LayerMasks | None:
    """Returns the masks of a text model; None if its layers attend in another way.

    Arguments:
        build_trial: builds a prompt with several pictures.
    """
    windows = _read_windows(model.config.get_text_config())
    if windows is None:
        return None
    plain = LayerMasks(windows)
    create = getattr(model, "create_masks_for_generate", create_masks_for_generate)
    accepted = inspect.signature(create).parameters
    if plain.is_plain and not accepted.keys() & {"token_type_ids", "mm_token_type_ids"}:
        return plain
    inputs = build_trial()
    length = inputs.length + max(window or 0 for window in windows.values())
    own = _ask(model, create, inputs, length)
    found = (LayerMasks(windows, has_blocks) for has_blocks in (False, True))
    return next((one for one in found if _are_equal(one, own, inputs, length)), None)


def _read_windows(text: Any) -> dict[str, int | None] | None:
    switched_on = getattr(text, "use_sliding_window", True)  # Mistral has no switch
    window = getattr(text, "sliding_window", None) if switched_on else None
    kinds = getattr(text, "layer_types", None)
    if not kinds:
        return {"": window}
    if not set(kinds) <= {_FULL, _SLIDING}:
        return None
    return {kind: window if kind == _SLIDING else None for kind in sorted(set(kinds))}


def _ask(model: Any, create: Any, inputs: ModelInputs, length: int) -> dict[str, Any]:
    """Returns the model's own masks of a prompt that text makes longer, by type of layer."""
    accepted = inspect.signature(create).parameters
    kinds = {
        name: torch.nn.functional.pad(value, (0, length - inputs.length))
        for name, value in inputs.token_inputs.items()
        if name in accepted
    }
    first = {"is_first_iteration": True} if "is_first_iteration" in accepted else {}
    own = create(
        config=model.config,
        inputs_embeds=torch.empty(1, length, 1, dtype=model.dtype),
        attention_mask=None,
        past_key_values=None,
        position_ids=None,
        **kinds,
        **first,
    )
    return own if isinstance(own, dict) else {"": own}


def _are_equal(masks: LayerMasks, own: dict[str, Any], inputs: ModelInputs, length: int) -> bool:
    if masks.has_blocks and len(inputs.token_inputs) != 1:
        return False
    blocks = masks.find_blocks(inputs)
    if blocks is not None:
        blocks = torch.nn.functional.pad(blocks, (0, length - inputs.length), value=-1)
    positions = torch.arange(length)[None]
    found = masks.build(length, positions, 0, 0, blocks)
    found = found if isinstance(found, dict) else {"": found}
    causal = torch.ones(1, 1, length, length, dtype=torch.bool).tril()  # None stands for it
    return own.keys() == found.keys() and all(
        torch.equal(causal if own[kind] is None else own[kind], found[kind]) for kind in own
    )


def mask_visible(
    reach: int,
    positions: torch.Tensor,
    start: int | torch.Tensor,
    prefix_length: int | torch.Tensor,
    window: int | None = None,
    blocks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns bool[..., reach]: the positions of its slot that each token attends to.

    A token at `positions`, int64[...], attends to the shared prefix and to its own region up to itself.

    Arguments:
        window: it attends to so many positions of its sequence only, its own included.
        blocks: int64[L] for each position of the sequence: it also attends to later ones with its number, if that
            is not negative.
    """
    columns = torch.arange(reach, device=positions.device)
    own = (columns < prefix_length) | (columns >= start)
    visible = own & (columns <= positions[..., None])
    if window is None and blocks is None:
        return visible
    indices = torch.where(columns < prefix_length, columns, columns - start + prefix_length)
    # Padding of a batch lies behind `reach`; it must see something, else its KV would be NaN.
    queries = positions.clamp(max=reach - 1)[..., None] - start + prefix_length
    if window is not None:
        visible &= indices > queries - window
    if blocks is not None:
        numbers, asked = blocks[indices.clamp(0, len(blocks) - 1)], blocks[queries]
        visible |= own & (numbers == asked) & (asked >= 0)
    return visible
