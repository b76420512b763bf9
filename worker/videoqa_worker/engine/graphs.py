"""Decode steps as CUDA graphs: one launch instead of a thousand.

A step of a small model costs the host more time than the device. A graph is captured once for
each number of rows and reach that occurs, both rounded up, and replayed with new numbers in the
same memory. Where capturing fails, steps run as they are, for good.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Step", "Stepper", "rounded_rows"]

log = logging.getLogger(__name__)

_WARM_UPS = 2

Step = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""(tokens int64[n], positions int64[n], reach) -> float[n, vocabulary]."""


def rounded_rows(count: int, most: int) -> int:
    """The next power of two, or all slots."""
    return min(1 << (count - 1).bit_length(), most)


class Stepper:
    """Runs steps, as graphs if `graphed`."""

    def __init__(self, step: Step, device: torch.device, *, graphed: bool) -> None:
        self._step, self._device = step, device
        self.graphed = graphed and device.type == "cuda"
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._pool: Any = None
        self._scratch = 0

    def forget(self, scratch: int) -> None:
        """The memory that graphs write to has been arranged anew.

        Arguments:
            scratch: the position of a slot that belongs to no row; where graphs are tried out.
        """
        self._graphs.clear()
        self._pool = None  # a pool ends with its last graph
        self._scratch = scratch

    def __call__(self, tokens: torch.Tensor, at: torch.Tensor, reach: int) -> torch.Tensor:
        if not self.graphed:
            return self._step(tokens, at, reach)
        key = tokens.shape[0], reach
        if key not in self._graphs:
            graph = self._captured(*key)
            if graph is None:
                return self._step(tokens, at, reach)
            self._graphs[key] = graph
        return self._graphs[key](tokens, at)

    def _captured(self, rows: int, reach: int) -> _Graph | None:
        try:
            graph = _Graph(self._step, rows, reach, self._scratch, self._device, self._pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.graphed = False
            self._graphs.clear()
            log.warning("decoding without CUDA graphs: %s", str(error).splitlines()[0])
            return None
        self._pool = graph.pool
        return graph


class _Graph:
    """One captured step."""

    def __init__(
        self,
        step: Step,
        rows: int,
        reach: int,
        scratch: int,
        device: torch.device,
        pool: Any,
    ) -> None:
        self._tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self._at = torch.full((rows,), scratch, dtype=torch.long, device=device)
        self._graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                step(self._tokens, self._at, reach)
        torch.cuda.current_stream(device).wait_stream(side)
        with torch.cuda.graph(self._graph, pool=pool):
            self._scores = step(self._tokens, self._at, reach)
        self.pool = self._graph.pool()

    def __call__(self, tokens: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        self._tokens.copy_(tokens)
        self._at.copy_(at)
        self._graph.replay()
        return self._scores
