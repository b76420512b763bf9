"""Rows of different lengths as one rectangle, padded on the left.

Left, because the answer is written at the right end of every row: with right padding 1 of
12 answers was that of the single run, with left padding 12.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from videoqa_worker.prompt import ModelInputs

__all__ = ["left_padded"]


def left_padded(
    rows: Sequence[ModelInputs], pad_token_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """`input_ids` and `attention_mask`, int64[rows, longest] each."""
    longest = max(row.length for row in rows)
    ids = torch.full((len(rows), longest), pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for n, row in enumerate(rows):
        ids[n, longest - row.length :] = row.input_ids[0]
        mask[n, longest - row.length :] = row.attention_mask[0]
    return ids.to(device), mask.to(device)
