"""Left-padded batches: prompts of different lengths as one rectangle.

Padded on the left, because the answer is written at the right end: with right padding 1 of 12 answers
was that of the single run, with left padding 12.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from videoqa_worker.prompt import ModelInputs

__all__ = ["pad_left"]


def pad_left(
    batch: Sequence[ModelInputs], pad_token_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns `input_ids` and `attention_mask`, int64[batch, longest] each."""
    longest = max(inputs.length for inputs in batch)
    ids = torch.full((len(batch), longest), pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for n, inputs in enumerate(batch):
        ids[n, longest - inputs.length :] = inputs.input_ids[0]
        mask[n, longest - inputs.length :] = inputs.attention_mask[0]
    return ids.to(device), mask.to(device)
