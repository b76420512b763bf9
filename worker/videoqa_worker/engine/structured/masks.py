"""Masks of the tokens that the answers of a batch may continue with, computed while the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from videoqa_worker.engine.structured.matcher import Matcher, count_words

if TYPE_CHECKING:
    from llguidance import LLExecutor

__all__ = ["TokenMasks", "mask_logits"]

_MOST_THREADS = 8


class TokenMasks:
    """The masks of one step: started before the forward pass, applied to its logits."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="videoqa-masks")
        self._executor: LLExecutor | None = None
        self._pending: Future[None] | None = None
        self._rows: dict[Matcher, int] = {}
        """Row of each matcher in the masks."""
        self._masks = np.zeros((0, 0), np.int32)

    def start(self, matchers: Sequence[Matcher]) -> None:
        """Begins to compute the masks of these matchers, which nothing else may use until `apply`."""
        self.wait()
        self._rows = {matcher: n for n, matcher in enumerate(matchers)}
        if not matchers:
            return
        words = count_words(matchers[0].width)
        if self._masks.shape[0] < len(matchers) or self._masks.shape[1] != words:
            self._masks = np.zeros((len(matchers), words), np.int32)
        self._pending = self._threads.submit(self._fill, [*matchers])

    def wait(self) -> None:
        """Waits until the masks are there, or have failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def apply(self, logits: torch.Tensor, matchers: Sequence[Matcher | None]) -> None:
        """Forbids in float32[sequences, vocabulary] what the matchers of these sequences do not allow.

        Matchers that were not started are computed here.
        """
        found = [(n, matcher) for n, matcher in enumerate(matchers) if matcher is not None]
        if not found:
            return
        self.wait()
        if any(matcher not in self._rows for _, matcher in found):
            self.start([matcher for _, matcher in found])
            self.wait()
        rows = self._masks[[self._rows[matcher] for _, matcher in found]]
        mask_logits(logits, [n for n, _ in found], rows)

    def close(self) -> None:
        """Ends the thread."""
        self._threads.shutdown()

    def _fill(self, matchers: list[Matcher]) -> None:
        if len(matchers) == 1:
            matchers[0].fill(self._masks[0])
            return
        if self._executor is None:
            from llguidance import LLExecutor

            self._executor = LLExecutor(min(_MOST_THREADS, torch.get_num_threads()))
        words = self._masks.shape[1]
        self._executor.unsafe_compute_mask_ptr(
            [(matcher.inner, n) for n, matcher in enumerate(matchers)],
            self._masks.ctypes.data,
            words * 4,
            len(self._masks),
        )


def mask_logits(logits: torch.Tensor, rows: list[int], masks: np.ndarray) -> None:
    """Sets forbidden tokens to minus infinity.

    Arguments:
        logits: float32[sequences, vocabulary], changed in place.
        rows: the sequences that masks are for.
        masks: int32[len(rows), words]; a bit is set for each token that is allowed.
    """
    width = logits.shape[1]
    if logits.device.type == "cpu":
        bits = np.unpackbits((~masks).view(np.uint8), axis=1, count=width, bitorder="little")
        forbidden = torch.from_numpy(bits).view(torch.bool)
    else:
        words = torch.from_numpy(masks).pin_memory().to(logits.device, non_blocking=True)
        shifts = torch.arange(32, device=logits.device, dtype=torch.int32)
        spread = (words[:, :, None] >> shifts) & 1
        forbidden = spread.flatten(1)[:, :width] == 0
    if len(rows) == len(logits):
        logits.masked_fill_(forbidden, -torch.inf)
    else:
        logits[rows] = logits[rows].masked_fill(forbidden, -torch.inf)
