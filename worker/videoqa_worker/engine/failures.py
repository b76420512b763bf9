"""Why a pass failed, in a form that holds no tensors: a traceback would."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from videoqa.errors import GenerationError, ModelError, OutOfMemory
from videoqa_worker.engine.request import Ticket

__all__ = ["NO_NUMBERS", "STOPPED", "Fault", "fault_of"]

STOPPED = "the engine stopped before the answer was complete; submit it again"
_NO_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
NO_NUMBERS = "the model wrote scores that are no numbers; try another dtype"


@dataclass(frozen=True)
class Fault:
    """An error of the device or the model, told apart: out of memory, or something else."""

    memory: bool
    text: str

    def as_error(self, ticket: Ticket) -> GenerationError:
        if self.memory:
            inputs = ticket.request.inputs
            return OutOfMemory(
                f"the device has no memory for {inputs.length} tokens ({inputs.frames} frames), "
                f"even alone: {self.text}; sample fewer frames, or use a larger device or "
                "quantization"
            )
        return ModelError(f"the model raised while it generated: {self.text}")


def fault_of(error: Exception) -> Fault:
    """
    Raises:
        torch.AcceleratorError: the device is broken until the process ends.
    """
    memory = _is_memory(error)
    if isinstance(error, torch.AcceleratorError) and not memory:
        raise error
    return Fault(memory, f"{type(error).__name__}: {error}")


def _is_memory(error: Exception) -> bool:
    """CUDA has a class for it; the CPU allocator and cuBLAS raise a RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)
    )
