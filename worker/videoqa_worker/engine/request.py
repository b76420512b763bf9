"""What goes into the engine and what comes out."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from videoqa.contract import FinishReason, Generation
from videoqa.errors import JobCanceled
from videoqa_worker.prompt import ModelInputs

__all__ = ["Generated", "GenerationRequest", "PendingRequest", "canceled", "never"]


def never() -> bool:
    """For `should_stop`: it is always wanted."""
    return False


def canceled() -> JobCanceled:
    """What a caller hears that wanted no answer any more."""
    return JobCanceled("the answer was stopped before it was complete")


@dataclass(frozen=True, eq=False)
class GenerationRequest:
    """One question to answer."""

    inputs: ModelInputs
    generation: Generation
    should_stop: Callable[[], bool] = never
    """Canceled, or past its deadline; asked at every decode step, so it must be cheap."""
    alone: bool = False
    """Never run together with others: a second attempt must convict only itself."""
    patience_s: float = 0.0
    """Requests that come so much later may still run first."""
    on_progress: Callable[[int], None] | None = None
    """Told how many tokens there are, after each; on the engine's thread, so be quick. The
    count starts again when the row has to be repeated."""
    on_text: Callable[[str], None] | None = None
    """Told each new piece of the answer, in whole characters and never part of a stop string; on
    the engine's thread, so be quick. A row that has to be repeated does not say it again."""


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
    first_token_s: float = field(default=0.0, compare=False)
    """Seconds from submitting to the first token."""


@dataclass(eq=False)
class PendingRequest:
    """A request that waits or runs, and the future that its caller holds."""

    request: GenerationRequest
    future: Future[Generated] = field(default_factory=Future)
    arrived_s: float = field(default_factory=time.monotonic)
    media: bytes = b""
    """Digest of its pictures; empty: nothing of them is kept."""
    beginning: tuple[bytes, int] | None = None
    """Digest and positions of the prompt up to its last picture, once they were asked for."""
    suspect: bool = False
    """Was there when the model raised, and so runs by itself."""
    retried: bool = False
    """Did not fit into memory, until what was kept there went."""
    said: int = 0
    """Characters told to `on_text`."""
    seed: int = field(init=False)
    """The request's, or one drawn here: a row that is repeated has to say the same again."""

    rank_s: float = field(init=False)
    """Who waits with the least runs first."""

    def __post_init__(self) -> None:
        self.rank_s = self.arrived_s + self.request.patience_s
        given = self.request.generation.seed
        self.seed = secrets.randbits(63) if given is None else given

    @property
    def prompt_tokens(self) -> int:
        return self.request.inputs.length

    @property
    def alone(self) -> bool:
        return self.suspect or self.request.alone

    @property
    def max_tokens(self) -> int:
        """Positions that it can need: prompt and longest answer."""
        return self.prompt_tokens + self.request.generation.max_new_tokens

    def withdrawal(self) -> Exception | None:
        """Why the caller wants no answer any more."""
        try:
            if self.request.should_stop():
                return canceled()
        except Exception as error:  # noqa: BLE001 - a caller's fault must not reach its neighbours
            return error
        return None

    def start(self) -> bool:
        """False if its caller has canceled the future; may be called again."""
        return self.future.running() or self.future.set_running_or_notify_cancel()
