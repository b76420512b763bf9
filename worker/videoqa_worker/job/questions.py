"""QuestionSession: one attempt's questions on their way to the engine and back.

Knows the engine and the job's control; nothing of videos, records or stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

from videoqa import errors
from videoqa.contract import Answer, AnswerForm, Question, Warn
from videoqa.telemetry.log_context import hide_texts
from videoqa_worker.engine import Answering, Generated, MediaQuestion
from videoqa_worker.job.answer_values import find_value
from videoqa_worker.job.context import AttemptContext
from videoqa_worker.job.draft import attribute_errors
from videoqa_worker.job.summary import SUMMARY_ID, hide_marks
from videoqa_worker.job.text_stream import TextStream
from videoqa_worker.job.trace import AskedAt
from videoqa_worker.prompt import FrameInput, PreparedMedia

__all__ = ["AskedQuestion", "QuestionSession", "write_refinement"]

_PATIENCE_S = {"interactive": 0.0, "bulk": 30.0}
"""Interactive jobs may pass a bulk job of the same worker that came so much earlier."""


@dataclass(eq=False)
class AskedQuestion:
    """A question on its way."""

    param: str
    """Place of the question in the request."""
    question: Question
    """With the request's instructions, where it has none of its own."""
    future: Future[Generated]
    listener: Callable[[str], None] | None
    """Hears the text of the answer that the user gets."""
    first: Generated | None = None
    """The first answer, once the model refines it."""


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

    def ask_each(
        self,
        media: Sequence[FrameInput] | PreparedMedia,
        stream: TextStream | None = None,
        *,
        is_new: bool = False,
    ) -> list[AskedQuestion]:
        """Queues all questions of the request about these media.

        Arguments:
            stream: hears the text of the answers that the user gets.
            is_new: no attempt asked this before, so it broke no batch, and need not be asked alone.
        """
        request = self._context.request
        found = []
        for n, question in enumerate(request.full_questions):
            listener = stream.make_listener(question.id) if stream else None
            is_last = question.refine is None
            future = self._queue(
                media,
                question.text,
                f"questions.{n}.text",
                listener if is_last else None,
                system=question.system,
                form=request.get_form(question) if is_last else None,
                is_new=is_new,
            )
            found.append(AskedQuestion(f"questions.{n}", question, future, listener))
        return found

    def answer_each(
        self, asked: Sequence[AskedQuestion], stream: TextStream | None = None
    ) -> Iterator[Answer]:
        """Waits for the answers to questions, has the model refine those that are to be, and yields them in order."""
        for one in asked:
            if one.question.refine is not None:
                self._refine(one, one.question.refine)
        for one in asked:
            param = f"{one.param}.{'text' if one.first is None else 'refine'}"
            generated = self._wait(one.future, param, stream)
            form = self._context.request.get_form(one.question)
            answer = _make_answer(one.question.id, one.question.text, generated, form)
            yield answer if one.first is None else _add_first(answer, one.first)

    def _refine(self, asked: AskedQuestion, instruction: str) -> None:
        """Waits for the first answer, and asks for the one that the user gets."""
        asked.first = first = self._wait(asked.future, f"{asked.param}.text")
        asked.future = self._queue(
            (),
            write_refinement(instruction, first.text),
            f"{asked.param}.refine",
            asked.listener,
            system=asked.question.system,
            form=self._context.request.get_form(asked.question),
        )

    def ask_about_notes(self, prompt: str, question: str) -> Answer:
        """Returns the answer to a prompt for the summary, which stands for the question."""
        future = self._queue((), prompt, "summary", system=self._context.request.system)
        return _make_answer(SUMMARY_ID, question, self._wait(future, "summary"))

    def _queue(
        self,
        media: Sequence[FrameInput] | PreparedMedia,
        text: str,
        param: str,
        on_text: Callable[[str], None] | None = None,
        *,
        system: str | None = None,
        form: AnswerForm | None = None,
        is_new: bool = False,
    ) -> Future[Generated]:
        """Queues a prompt that comes from this part of the request."""
        request, control = self._context.request, self._context.control
        control.check()
        with attribute_errors(param):
            question = MediaQuestion(
                media,
                text,
                system=system or "",
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

    def _wait(
        self, future: Future[Generated], param: str, stream: TextStream | None = None
    ) -> Generated:
        """Waits for an answer, and reports its text meanwhile."""
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
        return generated

    def _wait_for(self, future: Future[Generated], stream: TextStream | None) -> Generated:
        """The engine ends a stopped sequence itself; this thread is free even if the engine hangs."""
        while True:
            try:
                return future.result(timeout=stream.due_in_s() if stream else 1)
            except TimeoutError:
                self._context.control.check()
                if stream is not None:
                    stream.flush()


def write_refinement(instruction: str, answer: str) -> str:
    """Returns the prompt for a second answer; what looks like a mark for a video in the first is made none."""
    return f"{hide_marks(answer)}\n\n{instruction}"


def _make_answer(
    question_id: str, question: str, generated: Generated, form: AnswerForm | None = None
) -> Answer:
    return Answer(
        question_id=question_id,
        question=question,
        text=generated.text,
        finish_reason=generated.finish_reason,
        input_tokens=generated.input_tokens,
        output_tokens=generated.output_tokens,
        first_token_s=round(generated.first_token_s, 4),
        value=find_value(form, generated.text),
    )


def _add_first(answer: Answer, first: Generated) -> Answer:
    """Returns a refined answer with the first one's text, and with what both cost."""
    changes = {
        "unrefined": first.text,
        "input_tokens": first.input_tokens + answer.input_tokens,
        "output_tokens": first.output_tokens + answer.output_tokens,
        "first_token_s": round(first.seconds + (answer.first_token_s or 0), 4),
    }
    if first.finish_reason == "length":  # a refined part of an answer is a part, too
        changes["finish_reason"] = "length"
    return answer.model_copy(update=changes)
