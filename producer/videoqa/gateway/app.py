"""The gateway's app: its routes, and how errors become answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute

from videoqa import __version__, errors
from videoqa.contract import refuse_mistake
from videoqa.gateway.batches.runner import BatchRunner
from videoqa.gateway.bulk_runner import BulkRunner
from videoqa.gateway.dashboard import pages
from videoqa.gateway.dashboard.frame import make_error_page
from videoqa.gateway.dashboard.navigation import make_navigation
from videoqa.gateway.files.files import find_place
from videoqa.gateway.files.hiding import HideStorage, StorageUrls
from videoqa.gateway.http.compression import Compression
from videoqa.gateway.http.error_responses import make_error_response
from videoqa.gateway.http.methods import HeadAnswers, MethodTable
from videoqa.gateway.http.middleware import Envelope, find_request_id
from videoqa.gateway.http.origins import EXPOSED_HEADERS, LocalCalls
from videoqa.gateway.http.problems import HttpError
from videoqa.gateway.metrics.count_requests import CountRequests
from videoqa.gateway.metrics.own_metrics import OwnMetrics
from videoqa.gateway.openai import chat
from videoqa.gateway.reference import routes as docs
from videoqa.gateway.reference.document import make_document
from videoqa.gateway.resources import Resources
from videoqa.gateway.routes import (
    batches,
    bulk_actions,
    dead_letters,
    files,
    fleet,
    job_media,
    jobs,
    keys,
    many_jobs,
    metrics,
    runs,
    sheets,
    uploads,
    usage,
    validation,
    webhooks,
)
from videoqa.gateway.settings import GatewaySettings
from videoqa.telemetry import log_events

__all__ = ["make_app"]

log = logging.getLogger(__name__)


def make_app(settings: GatewaySettings) -> FastAPI:
    """Makes the app; it connects when it starts."""
    own_metrics = OwnMetrics()

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        app.state.resources = Resources(settings, own_metrics)
        app.state.resources.start()
        runner = BatchRunner(app.state.resources)
        runner.start()
        app.state.bulk_runner = BulkRunner(app.state.resources)
        app.state.bulk_runner.start()
        try:
            yield
        finally:
            app.state.resources.stop.set()
            await runner.close()
            await app.state.bulk_runner.close()
            await app.state.resources.close()

    app = FastAPI(
        title="videoqa",
        version=__version__,
        lifespan=run,
        routes=_list_routes(),
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        # Its own spans have queries and bodies, and one for each poll; ours are those of jobs.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.openapi = cache(lambda: make_document(app))  # type: ignore[method-assign]
    _add_middleware(app, settings, own_metrics)
    app.add_exception_handler(errors.VideoQAError, _answer_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _answer_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _answer_http)  # type: ignore[arg-type]
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.state.navigation = make_navigation(app)
    app.state.methods = MethodTable(
        (route.path, route.methods or ())
        for route in iter_route_contexts(app.routes)
        if route.path is not None
    )
    return app


@cache
def _list_routes() -> list[BaseRoute]:
    """Lists the routes of all apps of a process.

    FastAPI works out each route's parameters when its router is included, which takes 0.1 s for all of them.
    """
    every = APIRouter()
    for router in (
        fleet.health,
        metrics.router,
        sheets.router,
        job_media.router,
        validation.router,
        jobs.router,
        many_jobs.router,
        dead_letters.router,
        bulk_actions.router,
        fleet.router,
        runs.router,
        usage.router,
        webhooks.router,
        chat.router,
        batches.router,
        files.router,
        uploads.router,
        docs.router,
        keys.router,
        *pages.ROUTERS,
    ):
        every.include_router(router)
    return every.routes


def _add_middleware(app: FastAPI, settings: GatewaySettings, own_metrics: OwnMetrics) -> None:
    """Adds what is around all routes; the last one is outermost."""
    origins = settings.list_cors_origins()
    place = find_place(settings)
    # Within the compression, since it reads the answers.
    app.add_middleware(HideStorage, urls=StorageUrls(place.base if place else None))
    app.add_middleware(Compression)
    if settings.gateway_open:
        app.add_middleware(LocalCalls, origins=origins)
    app.add_middleware(Envelope, most_bytes=settings.gateway_max_body_bytes)
    app.add_middleware(CountRequests, metrics=own_metrics)
    app.add_middleware(HeadAnswers)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            # Those that are asked for: keys come in headers, never in cookies of other origins.
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            max_age=600,
        )


async def _answer_error(request: Request, error: errors.VideoQAError) -> Response:
    request_id = find_request_id(request.scope)
    if isinstance(error, (errors.ConfigurationError, errors.RecordUnreadable)):
        # Its caller is told that the log has it.
        log_events.REQUEST_REFUSED.log(log, request=request_id, error=error.message)
    return make_error_response(error, request.scope, request_id=request_id)


async def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    """Answers a path, query or header that is wrong, in our form."""
    first = error.errors()[0]
    return await _answer_error(request, refuse_mistake(first, first["loc"][1:]))


async def _answer_http(request: Request, error: HTTPException) -> Response:
    """Answers a route or a method that there is not."""
    if error.status_code == 404:
        unknown = jobs.refuse_unknown(request)
        if _is_readers(request):
            return make_error_page(unknown, request)
        return await _answer_error(request, unknown)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == 405:
        headers["allow"] = request.app.state.methods.describe(request.scope["path"])
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": headers["allow"]})
    code = {405: "method_not_allowed"}.get(error.status_code, "http_error")
    return await _answer_error(
        request,
        HttpError(
            error.status_code,
            code,
            f"{request.method} {request.scope['path']}: {error.detail}",
            headers=headers,
        ),
    )


def _is_readers(request: Request) -> bool:
    """Tells if a path that no route has was opened in a browser, which alone asks for HTML."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


async def _answer_nobody(request: Request, error: Exception) -> Response:
    """Ends a request whose caller hung up while it sent the body, which is no fault of the gateway's."""
    return Response(status_code=499)
