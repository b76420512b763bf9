"""Error responses in the form of the route: OpenAI's on its routes, pages of the dashboard, or problem documents."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from videoqa.errors import VideoQAError
from videoqa.gateway.http.problems import make_problem
from videoqa.gateway.openai.envelope import make_openai_error, speaks_openai

__all__ = ["make_error_response"]


@runtime_checkable
class ShowsErrors(Protocol):
    """A route that shows errors in a form of its own."""

    def make_error_page(self, error: VideoQAError, request: Any) -> Response:
        """Makes the answer."""


def make_error_response(error: VideoQAError, scope: Scope, *, request_id: str) -> Response:
    """Makes the response of an error of this request, in the form of its route."""
    route = scope.get("route")
    if isinstance(route, ShowsErrors):
        return route.make_error_page(error, Request(scope))
    if speaks_openai(scope["path"]):
        return make_openai_error(error)
    return make_problem(error, request_id=request_id)
