"""The environment in which vLLM starts its processes, and the file in which they report why they failed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videoqa_worker.machine import count_cores
from videoqa_worker.settings import EngineConfig
from videoqa_worker.vllm_process import REPORT_VARIABLE

__all__ = ["FailureReport", "prepare_import", "starting_processes"]

_BEFORE_IMPORT = {
    # vLLM would send the machine's properties and the model's name to its makers.
    "VLLM_NO_USAGE_STATS": "1",
    # Its processes write errors only; what it logs in this process is a log line of the worker.
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    # An answer from NaN or infinite logits fails instead of being silently wrong.
    "VLLM_COMPUTE_NANS_IN_LOGITS": "1",
}


def prepare_import() -> None:
    """Sets what vLLM reads when it is imported; a variable that is set already stays."""
    for name, value in _BEFORE_IMPORT.items():
        os.environ.setdefault(name, value)


class FailureReport:
    """A file into which vLLM's processes write their exceptions, see `vllm_process`."""

    def __init__(self) -> None:
        handle, name = tempfile.mkstemp(prefix="videoqa-vllm-", suffix=".txt")
        os.close(handle)
        self.path = Path(name)

    def read(self) -> str:
        """Returns the first exception, the cause of the others; empty if there was none."""
        try:
            lines = self.path.read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return lines[0] if lines else ""

    def remove(self) -> None:
        """Deletes the file."""
        self.path.unlink(missing_ok=True)


@contextmanager
def starting_processes(config: EngineConfig, report: FailureReport) -> Iterator[None]:
    """Sets the environment of vLLM's processes in the block; later ones, such as decoders, get the worker's own.

    vLLM itself adds to it, LD_PRELOAD among others.
    """
    before = dict(os.environ)
    os.environ[REPORT_VARIABLE] = str(report.path)
    # CUDA may be initialised here already, and a fork would share it.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    if config.cpu_threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(config.cpu_threads)
    else:  # one core is left to the decoders
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() - 1)))
    # Bound to cores, its threads would have no others while decoders run on these.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
