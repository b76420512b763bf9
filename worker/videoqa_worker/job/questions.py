"""QuestionSession: one attempt's questions on their way to the engine and back.

Knows the engine and the job's control; nothing of videos, records or stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Self

from videoqa import errors
from videoqa.contract import Answer, AnswerForm, Warn
from videoqa.telemetry.log_context import hide_texts
from videoqa_worker.engine import Answering, Generated, MediaQuestion
from videoqa_worker.job.answer_values import find_value
from videoqa_worker.job.context import AttemptContext
from videoqa_worker.job.draft import attribute_errors
from videoqa_worker.job.text_stream import TextStream
from videoqa_worker.job.trace import AskedAt
from videoqa_worker.prompt import FrameInput, PreparedMedia

__all__ = ["QuestionSession"]

_PATIENCE_S = {"interactive": 0.0, "bulk": 30.0}
"""Interactive jobs may pass a bulk job of the same worker that came so much earlier."""


class QuestionSession:
    """A context manager: questions that still run when it is left are stopped."""

    def __init__(self, engine: Answering, context: AttemptContext, *, own_batch: bool) -> None:
        """
        Arguments:
            own_batch: not batched with other jobs, so that a job that breaks its batch breaks only itself.
        """
        self._engine, self._context = engine, context
        self._own_batch = own_batch
        self._is_over = False
        self._asked: dict[Future[Generated], AskedAt] = {}
        """The moments of the questions on their way, where the attempt is traced."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True

    def warn_of(self, media: Sequence[FrameInput]) -> tuple[Warn, ...]:
        """Returns the engine's remarks on answers about these media."""
        return self._engine.warn_of(media)

    def ask(
        self,
        media: Sequence[FrameInput] | PreparedMedia,
        text: str,
        param: str,
        on_text: Callable[[str], None] | None = None,
        *,
        system: str = "",
        form: AnswerForm | None = None,
        is_new: bool = False,
    ) -> Future[Generated]:
        """Queues a question.

        Arguments:
            param: the part of the request that it comes from.
            system: instructions to the model; empty: none.
            form: form of the answer; None: free text.
            is_new: no attempt asked it before, so it broke no batch, and need not be asked alone.
        """
        request, control = self._context.request, self._context.control
        control.check()
        with attribute_errors(param):
            question = MediaQuestion(
                media,
                text,
                system=system,
                generation=request.generation,
                form=form,
                should_stop=lambda: self._is_over or control.is_stopped(),
                own_batch=self._own_batch and not is_new,
                patience_s=_PATIENCE_S[request.priority],
                on_text=on_text,
            )
            return self._ask(question)

    def _ask(self, question: MediaQuestion) -> Future[Generated]:
        if not self._context.trace.is_on:
            return self._engine.ask(question)
        asked = AskedAt()
        future = self._engine.ask(question)
        asked.note_built(future)
        self._asked[future] = asked
        return future

    def wait(
        self,
        future: Future[Generated],
        question_id: str,
        text: str,
        param: str,
        stream: TextStream | None = None,
        *,
        form: AnswerForm | None = None,
    ) -> Answer:
        """Waits for the answer to a question, and reports its text meanwhile."""
        with attribute_errors(param):
            try:
                generated = self._wait_for(future, stream)
            except errors.JobCanceled:
                # The engine only knows that it should stop; the control knows why.
                self._context.control.check()
                raise
        if stream is not None:
            stream.flush()
        self._context.tally.answers.append(generated)
        hide_texts(generated.text)
        if (asked := self._asked.pop(future, None)) is not None:
            self._context.trace.add_answer(asked, self._context.request.generation, generated)
        return Answer(
            question_id=question_id,
            question=text,
            text=generated.text,
            finish_reason=generated.finish_reason,
            input_tokens=generated.input_tokens,
            output_tokens=generated.output_tokens,
            first_token_s=round(generated.first_token_s, 4),
            value=find_value(form, generated.text),
        )

    def _wait_for(self, future: Future[Generated], stream: TextStream | None) -> Generated:
        """The engine ends a stopped sequence itself; this thread is free even if the engine hangs."""
        while True:
            try:
                return future.result(timeout=stream.due_in_s() if stream else 1)
            except TimeoutError:
                self._context.control.check()
                if stream is not None:
                    stream.flush()
