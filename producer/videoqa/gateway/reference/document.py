"""The OpenAPI document: FastAPI's table of routes and parameters, with the operations that the routes declare."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, cast

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from videoqa import errors
from videoqa.gateway.access.caller import Needs
from videoqa.gateway.http.problems import HttpError, describe_problem
from videoqa.gateway.openai.envelope import describe_error, speaks_openai
from videoqa.gateway.openai.schemas import OpenAIError
from videoqa.gateway.reference.error_codes import describe_code, find_status_of
from videoqa.gateway.reference.operation import (
    EVENT_STREAM,
    TEXT,
    Answer,
    Content,
    Operation,
    find_operation,
)
from videoqa.gateway.reference.problem import Problem
from videoqa.gateway.reference.schemas import Schemas

__all__ = ["list_operations", "make_document"]

_DESCRIPTION = """Questions about videos, as jobs.

A job is submitted, and its state, its events and its result are read under its id, until its lifetime is over
(`result_ttl_s`). Every call but those of the gateway's health needs an API key. Errors are problem documents (RFC 9457)
with a stable `code`; on the routes of OpenAI's protocol they have OpenAI's form, with the same codes. Each answer has
the header `X-Request-Id`.
"""
_TAGS = {
    "Jobs": "Questions about videos: submit, follow, read, cancel.",
    "Files": "Files of the caller's own, for jobs and batches; the form is that of OpenAI's API.",
    "OpenAI": "The routes of OpenAI's API, for its clients.",
    "Fleet": "Models, queues and workers.",
    "Runs": "Runs over archives, by `videoqa caption` and by batches, as they announce themselves.",
    "Usage": "What jobs have used.",
    "Keys": "API keys, and the log of what operators changed, for administrators.",
    "Webhooks": "Calls of your URLs when jobs end: those that were made, and the secret that signs them.",
    "Health": "The gateway's own health, without a key.",
}
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}]
_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "vqa_ID_SECRET",
        "description": "An API key: `Authorization: Bearer vqa_...`. `videoqa keys create` makes one.",
    },
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Api-Key",
        "description": "The same key, for clients that cannot set `Authorization`.",
    },
}
_HEADERS = {
    "X-Request-Id": "Id of the request: the caller's own, or a new one.",
    "RateLimit-Policy": "Limits of the API key, if it has any.",
    "RateLimit": "Rest of these limits: `r` requests for `t` more seconds.",
    "Retry-After": "Seconds to wait before the next try.",
    "WWW-Authenticate": "`Bearer`",
}
_CODES_OF_IDS = {
    "file_id": ("file_not_found", "file_expired"),
    "upload_id": ("upload_not_found",),
    "job_id": ("job_not_found", "job_expired", "record_unreadable"),
}
"""Codes of errors that follow from an id in the path."""


def list_operations(app: FastAPI) -> Iterator[tuple[str, str, RouteContext, Operation | None]]:
    """Yields method, path, route and declared operation of each route that is documented."""
    for route in iter_route_contexts(app.routes):
        if route.path_format is None or not getattr(route, "include_in_schema", False):
            continue
        for method in sorted(route.methods or ()):
            yield method, route.path_format, route, find_operation(route.endpoint)


def make_document(app: FastAPI) -> dict[str, Any]:
    """Makes the document of an app."""
    found = get_openapi(
        title="videoqa",
        version=app.version,
        description=_DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
        servers=[{"url": "/"}],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    operations = [each for each in list_operations(app) if each[3] is not None]
    schemas = _collect_schemas([cast(Operation, each[3]) for each in operations])
    shared: dict[str, Any] = {}
    for method, path, route, operation in operations:
        entry = found["paths"][path][method.lower()]
        needs = tuple(_find_needs(getattr(route, "dependant", None)))
        _Entry(entry, path, needs, cast(Operation, operation), schemas, shared).complete()
    found["components"] = {
        "schemas": schemas.components,
        "responses": dict(sorted(shared.items())),
        "securitySchemes": _SCHEMES,
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in _HEADERS.items()
        },
    }
    return found


def _collect_schemas(operations: list[Operation]) -> Schemas:
    requests = [content.schema for each in operations for content in each.bodies]
    answers: list[Any] = [Problem, OpenAIError]
    for each in operations:
        answers += [one.schema for answer in each.answers.values() for one in answer.contents]
    return Schemas(_pick_models(requests), _pick_models(answers))


def _pick_models(schemas: list[Any]) -> list[type[BaseModel]]:
    return [each for each in schemas if isinstance(each, type)]


def _find_needs(dependant: Dependant | None) -> Iterator[Needs]:
    for each in dependant.dependencies if dependant is not None else ():
        if isinstance(each.call, Needs):
            yield each.call
        yield from _find_needs(each)


class _Entry:
    """One operation of the document, which FastAPI made and the route's declaration completes."""

    def __init__(
        self,
        entry: dict[str, Any],
        path: str,
        needs: tuple[Needs, ...],
        operation: Operation,
        schemas: Schemas,
        shared: dict[str, Any],
    ) -> None:
        self._entry = entry
        self._path = path
        self._needs = needs
        self._operation = operation
        self._schemas = schemas
        self._shared = shared

    def complete(self) -> None:
        """Writes all that FastAPI does not know."""
        entry, operation = self._entry, self._operation
        entry["operationId"] = operation.name
        self._describe()
        entry["parameters"] = [
            _simplify(each)
            for each in entry.get("parameters", [])
            if each["name"].lower() not in ("authorization", "x-api-key")
        ]
        entry["security"] = _SECURITY if self._needs else []
        if operation.bodies:
            contents = {
                each.media_type: self._show(each, "validation") for each in operation.bodies
            }
            entry["requestBody"] = {"required": True, "content": contents}
        answers = {str(status): self._answer(each) for status, each in operation.answers.items()}
        entry["responses"] = answers | self._list_errors()

    def _describe(self) -> None:
        """Makes the docstring's first line the summary, and adds the role to the rest."""
        text = str(self._entry.pop("description", ""))
        summary, _, rest = text.partition("\n")
        roles = " and ".join(f"`{one.role}`" for one in self._needs)
        parts = [" ".join(rest.split())]
        if roles:
            about = ", of no tenant" if any(one.all_tenants for one in self._needs) else ""
            parts.append(f"Needs an API key with the role {roles}{about}.")
        self._entry["summary"] = summary.strip().removesuffix(".")
        self._entry["description"] = "\n\n".join([summary.strip(), *filter(None, parts)])

    def _show(self, content: Content, mode: JsonSchemaMode) -> dict[str, Any]:
        schema = self._schemas.refer(content.schema, mode)
        if content.media_type == EVENT_STREAM:
            data = {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": schema,
            }
            fields = {"data": data, "event": TEXT, "id": TEXT}
            schema = {"type": "object", "properties": fields, "required": ["data"]}
        return {"schema": schema, "example": content.example}

    def _answer(self, answer: Answer) -> dict[str, Any]:
        headers: dict[str, Any] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in answer.headers.items()
        }
        found: dict[str, Any] = {
            "description": answer.description,
            "headers": headers | self._list_headers(),
        }
        if answer.contents:
            found["content"] = {
                each.media_type: self._show(each, "serialization") for each in answer.contents
            }
        return found

    def _list_headers(self, status: int = 200) -> dict[str, Any]:
        names = ["X-Request-Id"]
        if self._needs and status != 401:
            names += ["RateLimit-Policy", "RateLimit"]
        if status in (429, 503):
            names.append("Retry-After")
        if status == 401:
            names.append("WWW-Authenticate")
        return {name: {"$ref": f"#/components/headers/{name}"} for name in names}

    def _list_codes(self) -> dict[str, int]:
        """Returns the codes of the route's errors, with their statuses."""
        codes = ["internal_error"]
        if not self._operation.is_static:
            codes.append("redis_unavailable")
        if self._needs:
            codes += ["wrong_key", "operator_only", "rate_limited"]
        if self._operation.bodies:
            codes += [
                "invalid_request",
                "body_too_large",
                "request_too_slow",
                "unsupported_media_type",
            ]
        if self._entry["parameters"]:
            codes.append("invalid_request")
        for name in re.findall(r"{(\w+)}", self._path):
            codes += _CODES_OF_IDS.get(name, ())
        if any(
            content.media_type == EVENT_STREAM
            for answer in self._operation.answers.values()
            for content in answer.contents
        ):
            codes.append("stream_limit")
        found = {code: find_status_of(code) for code in codes}
        for each in self._operation.errors:
            code, status = (each, find_status_of(each)) if isinstance(each, str) else each
            found[code] = status
        return found

    def _list_errors(self) -> dict[str, Any]:
        by_status: dict[int, list[str]] = defaultdict(list)
        for code, status in sorted(self._list_codes().items()):
            by_status[status].append(code)
        return {
            str(status): self._make_error(status, codes)
            for status, codes in sorted(by_status.items())
        }

    def _make_error(self, status: int, codes: list[str]) -> dict[str, Any]:
        """Makes the answer of a status; one of a single code is shared by all routes."""
        is_openai = speaks_openai(self._path)
        model: type[BaseModel] = OpenAIError if is_openai else Problem
        content = {
            "schema": self._schemas.refer(model, "serialization"),
            "examples": {
                code: {"summary": describe_code(code), "value": _make_example(code, status, model)}
                for code in codes
            },
        }
        kind = "application/json" if is_openai else "application/problem+json"
        found = {
            "description": " ".join(f"`{code}`: {describe_code(code)}" for code in codes),
            "headers": self._list_headers(status),
            "content": {kind: content},
        }
        if len(codes) > 1:
            return found
        words = codes[0].split("_") + ["of", "OpenAI"] * is_openai + ["open"] * (not self._needs)
        name = "".join(word[0].upper() + word[1:] for word in words)
        self._shared[name] = found
        return {"$ref": f"#/components/responses/{name}"}


def _simplify(parameter: dict[str, Any]) -> dict[str, Any]:
    """Returns a parameter with its example beside its schema; one that may be left out is never null."""
    schema = dict(parameter["schema"])
    schema.pop("title", None)
    schema.pop("description", None)
    one_of = [each for each in schema.pop("anyOf", []) if each != {"type": "null"}]
    if len(one_of) == 1:
        schema |= one_of[0]
    elif one_of:
        schema["anyOf"] = one_of
    examples = schema.pop("examples", None)
    found = {**parameter, "schema": schema}
    if examples:
        found["example"] = examples[0]
    if parameter["in"] == "header":
        found["name"] = "-".join(part.capitalize() for part in parameter["name"].split("-"))
    return found


def _make_example(code: str, status: int, model: type[BaseModel]) -> dict[str, Any]:
    """Makes the example of an error."""
    error = HttpError(status, code, describe_code(code))
    if model is OpenAIError:
        return describe_error(error)
    found = describe_problem(error, request_id="req_5f0c1b6c2a0e4d1f8a7b6c5d")
    kind = errors.REGISTRY.get(code)
    if kind is not None:
        found |= {"title": describe_code(code), "retryable": found["retryable"] or kind.retryable}
    return found
