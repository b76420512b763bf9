"""Asking: one attempt's questions on their way to the engine and back.

Knows the engine and the job's control; nothing of videos, records or stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Self

from videoqa import errors
from videoqa.contract import Answer, JobRequest
from videoqa_worker.engine import Answering, Generated, MediaQuestion
from videoqa_worker.job.cancellation import JobControl
from videoqa_worker.job.draft import about
from videoqa_worker.job.text_stream import Pieces
from videoqa_worker.prompt import FrameInput, PreparedMedia

__all__ = ["Asking"]

_PATIENCE_S = {"interactive": 0.0, "bulk": 30.0}
"""So long interactive jobs that came later may run before a bulk job of the same worker."""


class Asking:
    """A context manager: what still runs when it is left is stopped."""

    def __init__(
        self, engine: Answering, request: JobRequest, control: JobControl, *, alone: bool
    ) -> None:
        """`alone`: not batched with other jobs, so that a job that breaks its batch breaks only itself."""
        self._engine, self._request, self._control = engine, request, control
        self._alone = alone
        self._left = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True

    def ask(
        self,
        media: Sequence[FrameInput] | PreparedMedia,
        text: str,
        param: str,
        on_text: Callable[[str], None] | None = None,
        *,
        is_fresh: bool = False,
    ) -> Future[Generated]:
        """Queues a question.

        Arguments:
            param: the part of the request that it comes from.
            is_fresh: no attempt asked it before, so it broke none, and need not be asked alone.
        """
        self._control.check()
        with about(param):
            question = MediaQuestion(
                media,
                text,
                generation=self._request.generation,
                should_stop=lambda: self._left or self._control.stopped(),
                exclusive=self._alone and not is_fresh,
                patience_s=_PATIENCE_S[self._request.priority],
                on_text=on_text,
            )
            return self._engine.ask(question)

    def answer(
        self,
        future: Future[Generated],
        question_id: str,
        text: str,
        param: str,
        pieces: Pieces | None = None,
    ) -> Answer:
        """Waits for it."""
        with about(param):
            try:
                generated = self._awaited(future, pieces)
            except errors.JobCanceled:
                self._control.check()  # the engine only knows that it should stop, this knows why
                raise
        if pieces is not None:
            pieces.report()
        return Answer(
            question_id=question_id,
            question=text,
            text=generated.text,
            finish_reason=generated.finish_reason,
            input_tokens=generated.input_tokens,
            output_tokens=generated.output_tokens,
            first_token_s=round(generated.first_token_s, 4),
        )

    def _awaited(self, future: Future[Generated], pieces: Pieces | None) -> Generated:
        """The engine ends a stopped row itself; this thread is free even if the engine hangs."""
        while True:
            try:
                return future.result(timeout=pieces.due_in_s() if pieces else 1)
            except TimeoutError:
                self._control.check()
                if pieces is not None:
                    pieces.report()
