"""The engine's input and output: a generation request and its answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields

from videoqa.contract import AnswerForm, FinishReason, Generation
from videoqa.errors import JobCanceled
from videoqa_worker.engine.structured.matcher import Grammar
from videoqa_worker.prompt import FrameInput, ModelInputs, PreparedMedia

__all__ = [
    "AnswerOptions",
    "Generated",
    "GenerationRequest",
    "MediaQuestion",
    "PendingRequest",
    "make_canceled",
    "never_stop",
]


def never_stop() -> bool:
    """Returns False: the default of `should_stop`."""
    return False


def make_canceled() -> JobCanceled:
    """Returns the error for a caller that stopped its own request."""
    return JobCanceled("the answer was stopped before it was complete")


@dataclass(frozen=True, eq=False, kw_only=True)
class AnswerOptions:
    """Settings, scheduling and callbacks of a question, on its whole way to the model."""

    generation: Generation
    form: AnswerForm | None = None
    """Form that the answer has to have; None: free text. Stop strings do not end an answer of a form."""
    should_stop: Callable[[], bool] = never_stop
    """Canceled, or past its deadline; called at every decode step, so it must be cheap."""
    own_batch: bool = False
    """Never run together with others: a second attempt must not fail them."""
    patience_s: float = 0.0
    """Requests that arrive up to so much later may run first."""
    on_progress: Callable[[int], None] | None = None
    """Called with the number of tokens after each one, on the engine's thread, so it must be cheap. The
    count starts again if the sequence has to be repeated."""
    on_text: Callable[[str], None] | None = None
    """Called with each new part of the answer, in whole characters and never part of a stop string; on
    the engine's thread, so it must be cheap. A repeated sequence does not send its text again."""


@dataclass(frozen=True, eq=False)
class GenerationRequest(AnswerOptions):
    """A question whose prompt is built."""

    inputs: ModelInputs
    grammar: Grammar | None = field(default=None, kw_only=True)
    """The compiled form; the engine sets it."""


@dataclass(frozen=True, eq=False)
class MediaQuestion(AnswerOptions):
    """A question about media, for any engine."""

    media: Sequence[FrameInput] | PreparedMedia
    """Several questions about the same media share one `PreparedMedia`: their pixels are prepared once."""
    text: str
    system: str = field(default="", kw_only=True)
    """Instructions to the model; empty: none."""

    def to_request(self, inputs: ModelInputs) -> GenerationRequest:
        """Returns the request with the same options."""
        options = {option.name: getattr(self, option.name) for option in fields(AnswerOptions)}
        return GenerationRequest(inputs, **options)


@dataclass(frozen=True)
class Generated:
    """The answer to one request."""

    text: str
    """Without special tokens, without space around it; ends before a stop string."""
    tokens: tuple[int, ...]
    """All generated tokens, with the end token and the stop string, if any."""
    finish_reason: FinishReason
    input_tokens: int
    output_tokens: int
    first_token_s: float = field(default=0.0, compare=False)
    """Seconds from submitting to the first token."""
    seconds: float = field(default=0.0, compare=False)
    """Seconds from submitting to the last token."""

    @property
    def token_s(self) -> float | None:
        """Mean time between two tokens; None: there is only one."""
        if self.output_tokens < 2:
            return None
        return max(0.0, self.seconds - self.first_token_s) / (self.output_tokens - 1)


@dataclass(eq=False)
class PendingRequest:
    """A request that waits or runs, and the future that its caller holds."""

    request: GenerationRequest
    future: Future[Generated] = field(default_factory=Future)
    arrived_s: float = field(default_factory=time.monotonic)
    media_digest: bytes = b""
    """Digest of its pictures; empty: no cache looks at it."""
    prefix: tuple[bytes, int] | None = None
    """Digest and length of the prompt up to its last picture, once computed."""
    retry_alone: bool = False
    """It was running when the model raised, and so runs alone next time."""
    retried: bool = False
    """It ran out of memory once, before the caches were cleared."""
    streamed: int = 0
    """Characters passed to `on_text`."""
    seed: int = field(init=False)
    """The request's, or one drawn here: a repeated sequence has to say the same again."""
    rank_s: float = field(init=False)
    """Position in the queue: the least runs first."""

    def __post_init__(self) -> None:
        self.rank_s = self.arrived_s + self.request.patience_s
        given = self.request.generation.seed
        self.seed = secrets.randbits(63) if given is None else given

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return self.request.inputs.length

    @property
    def own_batch(self) -> bool:
        """True if it must not run together with others."""
        return self.retry_alone or self.request.own_batch

    @property
    def max_tokens(self) -> int:
        """Positions of the prompt and the longest answer."""
        return self.prompt_tokens + self.request.generation.max_new_tokens

    def find_withdrawal(self) -> Exception | None:
        """Returns the error to end with if the caller wants no answer any more."""
        try:
            if self.request.should_stop():
                return make_canceled()
        except Exception as error:  # noqa: BLE001 - a caller's fault must not reach its neighbours
            return error
        return None

    def start(self) -> bool:
        """Returns False if the caller has canceled the future; may be called again."""
        return self.future.running() or self.future.set_running_or_notify_cancel()
