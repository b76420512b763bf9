"""Operation: a route's body, answers and errors, declared above its function for the OpenAPI document.

    @router.post("", status_code=202)
    @document(
        "submit_job",
        body=Content(JobBody, {"inputs": ["https://a.org/x.mp4"], "questions": ["What happens?"]}),
        answers={202: Answer("The job.", Content(LinkedJob, examples.QUEUED))},
        errors=("queue_full",),
    )
    async def submit(request: Request, caller: Submitter) -> Response:

The name is that of a function in generated clients, and never changes. The summary and the description are the
docstring; parameters are described where they are annotated (`parameters.py`). Errors that follow from the kind of the
route, such as `wrong_key` and `job_not_found`, are added by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from videoqa.gateway.reference.parameters import TAG

__all__ = [
    "EVENT_STREAM",
    "TEXT",
    "Answer",
    "Content",
    "Operation",
    "describe_byte_answers",
    "document",
    "find_operation",
]

EVENT_STREAM = "text/event-stream"
TEXT: dict[str, Any] = {"type": "string"}
"""Schema of a text."""
_NAME = "videoqa_operation"

ErrorCode = str | tuple[str, int]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Content:
    """One form of a body: its schema and a true example. The schema of a stream is that of its events' data."""

    schema: type[BaseModel] | dict[str, Any]
    example: Any
    media_type: str = "application/json"


@dataclass(frozen=True, init=False)
class Answer:
    """An answer that is no error: without contents it has no body."""

    description: str
    contents: tuple[Content, ...]
    headers: Mapping[str, str]
    """Descriptions of headers, by their names."""

    def __init__(
        self, description: str, *contents: Content, headers: Mapping[str, str] | None = None
    ) -> None:
        object.__setattr__(self, "description", description)
        object.__setattr__(self, "contents", contents)
        object.__setattr__(self, "headers", dict(headers or {}))


@dataclass(frozen=True, kw_only=True)
class Operation:
    """The declared half of a route's documentation."""

    name: str
    answers: Mapping[int, Answer]
    bodies: tuple[Content, ...] = ()
    errors: tuple[ErrorCode, ...] = ()
    is_static: bool = False


def document(
    name: str,
    *,
    answers: Mapping[int, Answer],
    body: Content | tuple[Content, ...] = (),
    errors: tuple[ErrorCode, ...] = (),
    is_static: bool = False,
) -> Callable[[F], F]:
    """Declares a route's operation; stands below the router's decorator.

    Arguments:
        name: verb_noun, unique.
        answers: by their status.
        body: the request's body, in one form or several.
        errors: codes of errors of this very route; with a status, where it is not the code's own.
        is_static: the answer comes without Redis.
    """
    bodies = (body,) if isinstance(body, Content) else body
    operation = Operation(
        name=name, answers=answers, bodies=bodies, errors=errors, is_static=is_static
    )

    def note(endpoint: F) -> F:
        setattr(endpoint, _NAME, operation)
        return endpoint

    return note


def describe_byte_answers(of: str) -> dict[int, Answer]:
    """Returns the answers of a route of bytes, all or a range, of a thing with this name."""
    kind = "application/octet-stream"
    content = Content({**TEXT, "contentMediaType": kind}, "(the bytes)", kind)
    ranged = {"Content-Range": f"The range, and the size of the {of}."}
    return {
        200: Answer("All bytes.", content, headers=TAG),
        206: Answer("The bytes of the range.", content, headers=TAG | ranged),
        304: Answer("The caller has these bytes.", headers=TAG),
    }


def find_operation(endpoint: Any) -> Operation | None:
    """Returns the operation that a route's function declares."""
    found: Operation | None = getattr(endpoint, _NAME, None)
    return found
