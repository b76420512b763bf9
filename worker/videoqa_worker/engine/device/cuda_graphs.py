"""CUDA graphs of forward passes: one launch instead of a thousand.

Launching the kernels of a pass takes the host some 20 ms, whatever the device needs. A graph is
captured once for each kind and shape of pass, and replayed with new numbers in the same memory.
Callers round shapes up, so that few occur. Once a capture fails, passes run without graphs.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

from videoqa_worker import log_events

__all__ = ["CudaGraphs"]

log = logging.getLogger(__name__)

_WARM_UPS = 2
_MAX_GRAPHS = 64
"""The least recently used graph is dropped first."""

Pass = Callable[..., torch.Tensor]


class CudaGraphs:
    """The graphs of one device; without CUDA every pass runs as it is."""

    def __init__(self, device: torch.device, *, wanted: bool, strict: bool = False) -> None:
        """
        Arguments:
            wanted: False runs every pass without graphs.
            strict: raise if a pass cannot be captured.
        """
        self.enabled = wanted and device.type == "cuda"
        self._strict = strict
        self._device = device
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._pool: Any = None
        self._side: Any = None
        """Stream of all captures, which share their memory as well."""

    def clear(self) -> None:
        """Drops all graphs: the memory that they write to changes."""
        self._graphs.clear()
        self._pool = None  # a pool ends with its last graph

    def run(self, key: Hashable, function: Pass, *tensors: torch.Tensor) -> torch.Tensor:
        """Returns `function(*tensors)`, valid until the next pass.

        Arguments:
            key: equal for passes that differ only in the numbers in `tensors`.
            function: may run several times at the first call, with the same effect each time.
        """
        graph = self._graphs.get(key) or self._capture(key, function, tensors)
        if graph is None:
            return function(*tensors)
        self._graphs.move_to_end(key)
        return graph(tensors)

    def _capture(
        self, key: Hashable, function: Pass, tensors: tuple[torch.Tensor, ...]
    ) -> _Graph | None:
        if not self.enabled:
            return None
        try:
            # A capture records the current GPU: without this, an empty graph of the first one.
            with torch.cuda.device(self._device):
                self._side = self._side or torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
                graph = _Graph(function, tensors, self._side, self._pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self._strict:
                raise
            self.enabled = False
            self.clear()
            log_events.NO_GRAPHS.log(log, error=str(error).splitlines()[0])
            return None
        self._pool = graph.pool
        self._graphs[key] = graph
        if len(self._graphs) > _MAX_GRAPHS:
            self._graphs.popitem(last=False)
        return graph


class _Graph:
    """A captured pass and its input memory."""

    def __init__(
        self, function: Pass, tensors: tuple[torch.Tensor, ...], side: Any, pool: Any
    ) -> None:
        self._inputs = [tensor.clone() for tensor in tensors]
        self._graph = torch.cuda.CUDAGraph()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        # Callers' threads lock pages of pictures meanwhile; in a global capture both they and the
        # capture would fail.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=side, capture_error_mode="thread_local"
        ):
            self._result = function(*self._inputs)
        self.pool = self._graph.pool()

    def __call__(self, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        for own, new in zip(self._inputs, tensors, strict=True):
            own.copy_(new)
        self._graph.replay()
        return self._result
