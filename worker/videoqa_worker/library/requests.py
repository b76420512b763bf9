"""Requests to a `VideoQA`: those of jobs, with local paths, and without what only a queue can heed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from videoqa import errors
from videoqa.contract import Image, JobRequest, RequestFields, Video, parse_request

__all__ = ["OneInput", "OneRequest", "list_requests", "make_request"]

OneInput = str | Path | Video | Image | Mapping[str, Any]
"""A URL, a path on this machine, or an input with its fields."""
OneRequest = JobRequest | RequestFields | OneInput | Sequence[OneInput]
"""A whole request, or the inputs of one."""

_OF_QUEUES = (
    "idempotency_key", "max_attempts", "output", "replaces", "result_ttl_s", "sheet", "start_by", "webhook",
)  # fmt: skip
"""Fields of a request that only a queue, its storage or a gateway can heed."""


def make_request(
    inputs: object, questions: object, fields: Mapping[str, Any], *, model: str
) -> JobRequest:
    """Checks the fields of a request.

    Arguments:
        inputs, questions: None: they are in the fields.
        model: name of the only model there is.

    Raises:
        RequestError: as `parse_request`; InvalidRequest for a field that needs a queue, and for another model.
    """
    given = dict(fields)
    for name, value in (("inputs", inputs), ("questions", questions)):
        if value is None:
            continue
        if name in given:
            raise errors.InvalidRequest(f"got {name} twice, expected them once", param=name)
        given[name] = value
    if "inputs" in given:
        given["inputs"] = _spell_inputs(given["inputs"])
    return check_request(parse_request(given), model=model)


def check_request(request: JobRequest, *, model: str) -> JobRequest:
    """Returns the request; raises InvalidRequest for a field that needs a queue, and for another model."""
    for name in _OF_QUEUES:
        if getattr(request, name, None) != JobRequest.model_fields[name].get_default(
            call_default_factory=True
        ):
            raise errors.InvalidRequest(
                f"got {name}, which only a queue can heed; leave it out, or submit the request with a Client",
                param=name,
            )
    if request.model not in (None, model):
        raise errors.InvalidRequest(
            f"got the model {request.model!r}, expected {model!r} or none; make a VideoQA of that model",
            param="model",
        )
    return request


def list_requests(
    items: Sequence[OneRequest] | Iterator[OneRequest],
    questions: object,
    fields: Mapping[str, Any],
    *,
    model: str,
) -> Iterator[JobRequest | errors.RequestError]:
    """Yields the request of each item, or its mistake; `questions` and `fields` hold for all that state none."""
    common = dict(fields) if questions is None else {**fields, "questions": questions}
    for item in items:
        try:
            yield _make_one(item, common, model)
        except errors.RequestError as error:
            yield error


def _make_one(item: OneRequest, common: Mapping[str, Any], model: str) -> JobRequest:
    if isinstance(item, JobRequest):
        return check_request(item, model=model)
    if isinstance(item, Mapping) and "url" not in item:
        return make_request(None, None, {**common, **item}, model=model)
    return make_request(item, None, common, model=model)


def _spell_inputs(value: Any) -> Any:
    """Turns paths on this machine into file:// URLs, in one input or in several."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_spell_input(item) for item in value]
    return _spell_input(value)


def _spell_input(value: Any) -> Any:
    if isinstance(value, Mapping) and "url" in value:
        return {**value, "url": _spell_path(value["url"])}
    return _spell_path(value)


def _spell_path(value: Any) -> Any:
    """Returns a path for a text that is no URL; a relative one lies below the current folder."""
    if isinstance(value, str) and value and "://" not in value and not value.startswith("file:"):
        value = Path(value)
    return value.expanduser().absolute() if isinstance(value, Path) else cast(Any, value)
