"""Passes as CUDA graphs: one launch instead of a thousand.

Launching the kernels of a pass takes the host some 20 ms, whatever the device needs. A graph is
captured once for each kind and shape of pass, and replayed with new numbers in the same memory.
Shapes are rounded up by whoever calls, so that few occur. Where capturing fails, passes run as
they are, for good.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

__all__ = ["Graphs"]

log = logging.getLogger(__name__)

_WARM_UPS = 2
_MOST = 64
"""Graphs that are held; the one not used for longest goes first."""

Pass = Callable[..., torch.Tensor]


class Graphs:
    """Of one device. Without CUDA, or if not `wanted`, every pass just runs; where they are `strict`, one that
    cannot be captured is an error instead."""

    def __init__(self, device: torch.device, *, wanted: bool, strict: bool = False) -> None:
        self.on = wanted and device.type == "cuda"
        self._strict = strict
        self._device = device
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._pool: Any = None
        self._side: Any = None
        """The stream that passes are captured on: the same for all, as their memory is."""

    def forget(self) -> None:
        """The memory that passes write to is another from here on."""
        self._graphs.clear()
        self._pool = None  # a pool ends with its last graph

    def run(self, key: Hashable, function: Pass, *tensors: torch.Tensor) -> torch.Tensor:
        """`function(*tensors)`. What comes back is good until the next pass.

        Arguments:
            key: the same for passes that differ in the numbers in `tensors` alone.
            function: may run several times over at the first call, and so must do the same each
                time.
        """
        graph = self._graphs.get(key) or self._captured(key, function, tensors)
        if graph is None:
            return function(*tensors)
        self._graphs.move_to_end(key)
        return graph(tensors)

    def _captured(
        self, key: Hashable, function: Pass, tensors: tuple[torch.Tensor, ...]
    ) -> _Graph | None:
        if not self.on:
            return None
        try:
            # What is captured is what the current GPU is told: else an empty graph of the first one.
            with torch.cuda.device(self._device):
                self._side = self._side or torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
                graph = _Graph(function, tensors, self._side, self._pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self._strict:
                raise
            self.on = False
            self.forget()
            log.warning("going on without CUDA graphs: %s", str(error).splitlines()[0])
            return None
        self._pool = graph.pool
        self._graphs[key] = graph
        if len(self._graphs) > _MOST:
            self._graphs.popitem(last=False)
        return graph


class _Graph:
    """One captured pass, and the memory that its numbers are put into."""

    def __init__(
        self, function: Pass, tensors: tuple[torch.Tensor, ...], side: Any, pool: Any
    ) -> None:
        self._given = [tensor.clone() for tensor in tensors]
        self._graph = torch.cuda.CUDAGraph()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                function(*self._given)
        torch.cuda.current_stream().wait_stream(side)
        # Callers' threads lock pages of pictures meanwhile, which a global capture would forbid them:
        # both they and the capture would fail.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=side, capture_error_mode="thread_local"
        ):
            self._result = function(*self._given)
        self.pool = self._graph.pool()

    def __call__(self, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        for own, new in zip(self._given, tensors, strict=True):
            own.copy_(new)
        self._graph.replay()
        return self._result
