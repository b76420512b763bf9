"""What a pipeline and a runtime need of an engine, be the model in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from videoqa.contract import Generation
from videoqa_worker.engine.request import Generated, never_stop
from videoqa_worker.engine.stats import Stats
from videoqa_worker.prompt import FrameInput, PreparedMedia

__all__ = ["Answering"]


class Answering(Protocol):
    """Answers questions from any thread."""

    def start(self) -> None:
        """Returns when it can answer.

        Raises:
            ConfigurationError: it never_stop will.
        """

    def close(self) -> None:
        """Ends what runs and waits with EngineStopped."""

    def ask(
        self,
        media: Sequence[FrameInput] | PreparedMedia,
        question: str,
        generation: Generation,
        *,
        should_stop: Callable[[], bool] = never_stop,
        exclusive: bool = False,
        patience_s: float = 0.0,
        on_text: Callable[[str], None] | None = None,
    ) -> Future[Generated]:
        """Queues a question; see `GenerationRequest` for the arguments. For more than one question
        about the same media give a `PreparedMedia`: their pictures are then prepared once.

        Its future has the answer, or a GenerationError or JobCanceled.

        Raises:
            GenerationError: at once, where the prompt cannot be written.
        """

    @property
    def ready(self) -> bool:
        """Started, and able to answer; False for good once it is broken."""

    @property
    def stats(self) -> Stats: ...

    @property
    def revision(self) -> str | None:
        """Of the model, where it is known."""

    @property
    def device(self) -> str:
        """`cpu`, `cuda:0`, or `server`."""

    @property
    def stated_sampling(self) -> tuple[int | None, float | None]:
        """Frames and fps that the model's processor states, where it does."""
