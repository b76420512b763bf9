"""Capture of passes as CUDA graphs. No GPU is here: the calls of torch.cuda are recorded instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from videoqa_worker.engine.device.cuda_graphs import CudaGraphs


class Cuda:
    """The part of torch.cuda that `graphs` uses, with several GPUs. A graph is a pass that is run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = 0
        self.captured: list[dict[str, Any]] = []
        for name in ("device", "stream", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "Stream", self.new_stream)
        monkeypatch.setattr(torch.cuda, "current_stream", self.new_stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", _Recorded)

    def new_stream(self, device: torch.device | None = None) -> _Stream:
        return _Stream(self.current if device is None else device.index)

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, device.index
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def stream(self, stream: _Stream) -> Iterator[None]:
        with self.device(torch.device("cuda", stream.index)):
            yield

    @contextmanager
    def graph(
        self,
        graph: _Recorded,
        pool: Any = None,
        stream: _Stream | None = None,
        capture_error_mode: str = "global",
    ) -> Iterator[None]:
        """torch's own makes a stream of the current GPU where none is given."""
        stream = stream or self.new_stream()
        with self.stream(stream):
            self.captured.append({"gpu": self.current, "mode": capture_error_mode})
            yield


class _Stream:
    def __init__(self, index: int) -> None:
        self.index = index

    def wait_stream(self, _: _Stream) -> None:
        pass


class _Recorded:
    def pool(self) -> str:
        return "pool"

    def replay(self) -> None:
        pass


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


def captured(cuda: Cuda, device: str) -> dict[str, Any]:
    graphs = CudaGraphs(torch.device(device), wanted=True)
    assert graphs.run("key", lambda numbers: numbers + 1, torch.ones(2)).tolist() == [2, 2]
    (found,) = cuda.captured
    return found


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_a_pass_is_captured_on_the_gpu_that_its_model_is_on(cuda: Cuda, device: str) -> None:
    assert captured(cuda, device)["gpu"] == torch.device(device).index
    assert cuda.current == 0


def test_other_threads_may_lock_pages_while_a_pass_is_captured(cuda: Cuda) -> None:
    """`pin_memory` asks CUDA for memory and of its events, which a `global` capture forbids to all."""
    assert captured(cuda, "cuda:0")["mode"] == "thread_local"


def test_where_capturing_fails_passes_just_run_unless_that_was_to_be_tried(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    def refused(*_: Any, **__: Any) -> Iterator[None]:
        raise RuntimeError("operation not permitted when stream is capturing")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refused)
    device = torch.device("cuda:0")
    strict = CudaGraphs(device, wanted=True, strict=True)
    with pytest.raises(RuntimeError, match="not permitted"):
        strict.run("key", lambda numbers: numbers + 1, torch.ones(2))
    assert not caplog.records
    graphs = CudaGraphs(device, wanted=True)
    assert graphs.run("key", lambda numbers: numbers + 1, torch.ones(2)).tolist() == [2, 2]
    assert not graphs.enabled
    assert "going on without CUDA graphs" in caplog.text
