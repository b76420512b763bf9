"""What goes into the engine and what comes out."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from videoqa.job import FinishReason, Generation
from videoqa_worker.prompt import ModelInputs

__all__ = ["Generated", "GenerationRequest", "Ticket"]


def _never() -> bool:
    return False


@dataclass(frozen=True, eq=False)
class GenerationRequest:
    """One question to answer."""

    inputs: ModelInputs
    generation: Generation
    should_stop: Callable[[], bool] = _never
    """Canceled, or past its deadline; asked at every decode step, so it must be cheap."""
    alone: bool = False
    """Never run together with others: a second attempt must convict only itself."""
    on_progress: Callable[[int], None] | None = None
    """Told how many tokens there are, after each; on the engine's thread, so be quick. The
    count starts again when a batch has to be repeated."""


@dataclass(frozen=True)
class Generated:
    """The answer to one request."""

    text: str
    """Without special tokens, without space around it; ends before a stop string."""
    tokens: tuple[int, ...]
    """All that was generated, with the end token and the stop string, if any."""
    finish_reason: FinishReason
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, eq=False)
class Ticket:
    """A request that waits or runs, and the future that its caller holds."""

    request: GenerationRequest
    future: Future[Generated] = field(default_factory=Future)
    arrived_s: float = field(default_factory=time.monotonic)

    @property
    def prompt_tokens(self) -> int:
        return self.request.inputs.length
