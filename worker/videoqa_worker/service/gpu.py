"""GPUs as NVML sees them: memory and utilisation, where NVIDIA's driver and its Python binding are installed."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from videoqa.telemetry.metrics import Metric
from videoqa.telemetry.metrics.instruments import Samples
from videoqa.telemetry.metrics.worker import GPU_MEMORY, GPU_MEMORY_USED, GPU_UTILIZATION
from videoqa_worker import log_events

__all__ = ["GpuReader"]

log = logging.getLogger(__name__)


class GpuReader:
    """Reads the GPUs of this machine; none without the package `nvidia-ml-py` or the driver."""

    def __init__(self, module: str = "pynvml") -> None:
        """
        Arguments:
            module: the binding; a test has one of its own.
        """
        self._nvml: Any = None
        try:
            nvml = import_module(module)
            nvml.nvmlInit()
        except Exception as error:  # noqa: BLE001 - its own errors are known only once it is imported
            log_events.GPU_METRICS_MISSING.log(log, error=error)
            return
        self._nvml = nvml

    def read(self) -> list[tuple[Metric, Samples]]:
        """Returns the metrics of all GPUs; none if there are none, or NVML fails."""
        nvml = self._nvml
        if nvml is None:
            return []
        total: dict[tuple[str, ...], float] = {}
        used: dict[tuple[str, ...], float] = {}
        busy: dict[tuple[str, ...], float] = {}
        try:
            for number in range(nvml.nvmlDeviceGetCount()):
                gpu, key = nvml.nvmlDeviceGetHandleByIndex(number), (str(number),)
                memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
                total[key], used[key] = memory.total, memory.used
                busy[key] = nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100
        except Exception as error:  # noqa: BLE001 - a scrape goes on without them
            log_events.GPU_METRICS_MISSING.log(log, error=error)
            return []
        return [(GPU_MEMORY, total), (GPU_MEMORY_USED, used), (GPU_UTILIZATION, busy)]
