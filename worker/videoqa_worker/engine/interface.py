"""Interface of an engine, whether the model is in this process or on a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from videoqa.contract import Warn
from videoqa_worker.engine.device.memory import DeviceMemory
from videoqa_worker.engine.generation import Generated, MediaQuestion
from videoqa_worker.engine.stats import Stats
from videoqa_worker.prompt import FrameInput

__all__ = ["Answering"]


class Answering(Protocol):
    """Answers questions from any thread."""

    def start(self) -> None:
        """Starts the engine; returns when it can answer.

        Raises:
            ConfigurationError: it will never be able to answer.
        """

    def close(self) -> None:
        """Ends running and waiting questions with EngineStopped."""

    def ask(self, question: MediaQuestion) -> Future[Generated]:
        """Queues a question.

        The future holds the answer, or a GenerationError or JobCanceled.

        Raises:
            GenerationError: at once, if the prompt cannot be built.
        """

    @property
    def ready(self) -> bool:
        """True while it can answer; False for good once it is broken."""

    @property
    def stats(self) -> Stats:
        """Counters now."""

    @property
    def revision(self) -> str | None:
        """Revision of the model, if it is known."""

    @property
    def prompt_form(self) -> str | None:
        """Digest of the form in which the model gets pictures and videos here, if it is known."""

    @property
    def device(self) -> str:
        """Device of the model: `cpu`, `cuda:0`, or `server`."""

    def measure_device(self) -> DeviceMemory | None:
        """Returns the name and memory of the device; None: they are not known."""

    @property
    def stated_generation(self) -> Mapping[str, Any]:
        """The checkpoint's own generation settings that are in force; empty if they are not known."""

    @property
    def stated_sampling(self) -> tuple[int | None, float | None]:
        """Frames and fps that the model's processor states, if it does."""

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """Remarks on all of its answers, for their results."""

    def warn_of(self, media: Sequence[FrameInput]) -> tuple[Warn, ...]:
        """Returns remarks on answers about these media."""
