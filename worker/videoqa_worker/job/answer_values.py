"""Values of answers: what their texts stand for, and the warnings about answers that have none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import JsonValue

from videoqa.contract import Answer, AnswerForm, JobRequest, ValueUnreadable, Warn, read_value

__all__ = ["find_value", "warn_of_values"]


def find_value(form: AnswerForm | None, text: str) -> JsonValue:
    """Returns the value of an answer; None if it has none, of which `warn_of_values` tells."""
    try:
        return None if form is None else read_value(form, text)
    except ValueUnreadable:
        return None


def warn_of_values(request: JobRequest, answers: Iterable[Answer]) -> list[Warn]:
    """Returns warnings about answers of a form, each once.

    Arguments:
        answers: of all segments, if there are any.
    """
    found = {warning.message: warning for warning in _list_warnings(request, answers)}
    return [*_warn_of_stop(request), *found.values()]


def _list_warnings(request: JobRequest, answers: Iterable[Answer]) -> Iterator[Warn]:
    questions = {question.id: (n, question) for n, question in enumerate(request.questions)}
    for answer in answers:
        if answer.question_id not in questions:  # the summary
            continue
        n, question = questions[answer.question_id]
        form = request.get_form(question)
        if form is None:
            continue
        try:
            read_value(form, answer.text)
        except ValueUnreadable as error:
            yield _make_warning(answer, str(error), f"questions.{n}")


def _make_warning(answer: Answer, reason: str, param: str) -> Warn:
    about = f"the answer to question {answer.question_id}"
    if answer.finish_reason == "length":
        message = (
            f"{about} was cut off at max_new_tokens, so it has a text and no value; raise "
            "generation.max_new_tokens"
        )
        return Warn(code="answer_incomplete", message=message, param=param)
    message = (
        f"{about} has not the form that was asked for, so it has a text and no value: {reason:.200}"
    )
    return Warn(code="answer_unreadable", message=message, param=param)


def _warn_of_stop(request: JobRequest) -> Iterator[Warn]:
    is_free = [
        request.get_form(each) is None or each.refine is not None for each in request.full_questions
    ]
    if request.generation.stop and not any(is_free):
        message = (
            "got stop strings, which do not end answers of a form: such an answer is whole when its form is; leave "
            "them out"
        )
        yield Warn(code="stop_unused", message=message, param="generation.stop")
