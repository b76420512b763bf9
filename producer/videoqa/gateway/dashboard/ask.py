"""The page Ask: a form for a job, with its frames before anything is asked, its answer, and its code.

With JavaScript the page calls the routes of `/v1` by its session; without, the form is sent to `/ask` and leads to the
job. One parser reads the form for both (`ask_form.py`).
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse

from videoqa import errors
from videoqa.contract import JobRequest
from videoqa.gateway.access.caller import Caller, Submitter
from videoqa.gateway.access.input_scope import ANY_HTTP, EVERYTHING
from videoqa.gateway.dashboard.ask_code import list_codes
from videoqa.gateway.dashboard.ask_form import AskForm, Mistake, list_mistakes
from videoqa.gateway.dashboard.forms import TOKEN, check_token
from videoqa.gateway.dashboard.frame import (
    HEADERS,
    PageRouter,
    leave_page,
    make_link,
    read_form,
    show_page,
    take_snapshot,
)
from videoqa.gateway.files.form import FileBegin, FormParser
from videoqa.gateway.files.writer import FORM_BYTES
from videoqa.gateway.http.bodies import find_media_type
from videoqa.gateway.http.middleware import set_body_limit
from videoqa.gateway.http.problems import HttpError, find_code, find_status, make_error_headers
from videoqa.gateway.routes.files import read_body
from videoqa.gateway.routes.jobs import describe, parse_body

__all__ = ["router"]

router = PageRouter()

SAMPLE_NAME, SAMPLE_QUESTION = "the sample clip", "What is moving?"
ANYTHING = "-"
"""Question of a preview that asks nothing yet."""
_MORE = ("generation", "priority", "sheet", "tags", "stream")
"""Beginnings of the fields behind "More options"."""
_REASONS = {
    "no_probe": "This gateway shows no frames: `videoqa-worker` is not installed beside it. The job runs all the same.",
    "too_busy": "Too many previews are made now; try again in a moment.",
    "too_slow": "The frames did not come in time. The job has more of it, and runs all the same.",
    "too_large": "The frames lie too far apart in a large file for a preview. The job runs all the same.",
    "probe_failed": "The frames could not be taken; the gateway's log says why.",
}
"""Words for the reasons why there is no preview; the script has them from the page."""


@router.get("/ask")
async def show_ask(
    request: Request,
    caller: Submitter,
    earlier: Annotated[str | None, Query(alias="from", max_length=100)] = None,
    file: Annotated[str | None, Query(max_length=100)] = None,
    name: Annotated[str, Query(max_length=300)] = "",
    sample: Annotated[bool, Query()] = False,
) -> Response:
    """Shows the form: empty, with the request of an earlier job, or with a file that was just uploaded."""
    if request.scope["state"].get("credential", ("open", ""))[0] != "key":
        caller.resources.estimator.warm()  # a browser asks for frames soon
    form = AskForm(values={"stream": "on"})
    if earlier is not None:
        if not caller.key.may("read"):
            raise errors.OperatorOnly(
                f"this key has the roles {', '.join(caller.key.roles)}, expected read for an earlier job; ask an "
                "administrator for another"
            )
        job = await caller.client.get(earlier, include_request=True)
        form = AskForm.of_job(job, caller.resources.files.urls)
        form.shorten()
        if caller.resources.settings.hide_text:
            form.hide_text()
    if file is not None:
        form.inputs = [{"url": file, "start": "", "end": "", "name": name}]
    elif sample and caller.resources.settings.gateway_sample is not None:
        form.inputs[0] |= {"url": caller.resources.settings.gateway_sample, "name": SAMPLE_NAME}
        form.questions = [SAMPLE_QUESTION]
    return await _show(request, caller, form)


@router.post("/ask")
async def ask(request: Request, caller: Submitter) -> Response:
    """Submits the job of the form, or shows its frames; the page's script gets JSON."""
    fields = await read_form(request)
    form = AskForm.read(fields)
    wants_json = "application/json" in request.headers.get("accept", "")
    if "look" in fields and not wants_json:
        return await _show_frames(request, caller, form)
    try:
        job = await caller.submit(_parse(form))
    except errors.VideoQAError as error:
        if isinstance(error, errors.RedisUnavailable):
            raise
        if wants_json:
            return _refuse(error)
        page = await _show(request, caller, form, list_mistakes(error), status=find_status(error))
        page.headers.update(make_error_headers(error))
        return page
    if wants_json:
        return JSONResponse({"job": describe(job)}, 202, HEADERS)
    if not caller.key.may("read"):
        return leave_page(
            request, "/ask", notice=f"Submitted as {job.id}. This key may not read its answer."
        )
    return leave_page(request, "/jobs/{job_id}", job_id=job.id)


@router.post("/ask/check")
async def check_form(request: Request, caller: Submitter) -> Response:
    """Returns the request that the form makes, its mistakes, and its code; submits nothing."""
    form = AskForm.read(await read_form(request))
    body = form.make_body()
    mistakes: list[Mistake] = []
    try:
        await caller.check(_parse(form))
    except errors.VideoQAError as error:
        if isinstance(error, errors.RedisUnavailable):
            raise
        mistakes = list_mistakes(error)
    looked_at = _pick_choice(body)
    is_wrong = any(one.param.startswith("questions") for one in mistakes)
    if not is_wrong and any(text.strip() for text in body["questions"]):
        looked_at["questions"] = body["questions"]
    return JSONResponse(
        {
            "request": body,
            "preview": looked_at,
            "mistakes": [{"param": one.param, "message": one.message} for one in mistakes],
            "codes": _list_codes(request, caller, body),
        },
        headers=HEADERS,
    )


@router.post("/ask/upload")
async def upload(request: Request, caller: Submitter) -> Response:
    """Stores a file of the form without JavaScript, in constant memory, and leads back to the page with it."""
    if find_media_type(request) != "multipart/form-data":
        raise HttpError(
            415,
            "unsupported_media_type",
            f"got a body of type {find_media_type(request)!r:.100}, expected multipart/form-data",
        )
    files = caller.resources.files
    length = request.headers.get("content-length")
    set_body_limit(request.scope, caller.resources.settings.max_source_bytes + FORM_BYTES)
    form = FormParser(request.headers["content-type"], file_field="file", fields=(TOKEN,))
    writing = files.writing(
        "upload",
        tenant=caller.key.tenant,
        length=None if length is None else int(length),
        most_bytes=caller.key.max_file_bytes,
    )
    name = "upload"
    with files.sending(caller.key.tenant):
        async with writing as writer:
            async for data in read_body(request):
                for found in form.feed(data):
                    if isinstance(found, FileBegin):
                        check_token(request, form.fields.get(TOKEN, ""))
                        name = found.filename
                        writer.name(name)
                    else:
                        await writer.write(found)
            form.finish()
            record = await writer.finish("user_data")
    return leave_page(request, "/ask", file=record.id, name=name[:300])


def _parse(form: AskForm) -> JobRequest:
    return parse_body(form.make_body())


def _pick_choice(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a request that chooses the frames."""
    names = ("inputs", "sampling", "model")
    return {name: value for name, value in body.items() if name in names}


def _refuse(error: errors.VideoQAError) -> Response:
    mistakes = [{"param": one.param, "message": one.message} for one in list_mistakes(error)]
    headers = HEADERS | dict(make_error_headers(error))
    return JSONResponse(
        {"code": find_code(error), "mistakes": mistakes}, find_status(error), headers
    )


def _list_codes(request: Request, caller: Caller, body: dict[str, Any]) -> dict[str, str]:
    base = f"{request.url.scheme}://{request.url.netloc}{make_link(request, '/').rstrip('/')}"
    return list_codes(body, base, has_key=not caller.resources.settings.gateway_open)


async def _show_frames(request: Request, caller: Caller, form: AskForm) -> Response:
    """Shows the form with the frames that its job would take, for readers without JavaScript."""
    body = form.make_body()
    looked_at = _pick_choice(body)
    try:
        checked = await caller.check(parse_body({"questions": [ANYTHING], **looked_at}))
    except errors.VideoQAError as error:
        if isinstance(error, errors.RedisUnavailable):
            raise
        return await _show(request, caller, form, list_mistakes(error), status=find_status(error))
    resources = caller.resources
    found = await resources.estimator.preview(
        checked, resources.settings.gateway_validate_s, caller.key.id
    )
    return await _show(request, caller, form, preview=found)


async def _show(
    request: Request,
    caller: Caller,
    form: AskForm,
    mistakes: list[Mistake] | None = None,
    *,
    preview: dict[str, Any] | None = None,
    status: int = 200,
) -> Response:
    key, settings = caller.key, caller.resources.settings
    models = await _list_models(caller)
    found = {one.param: one.message for one in reversed(mistakes or [])}
    scope = () if key.inputs in (ANY_HTTP, EVERYTHING) else key.inputs
    return show_page(
        request,
        "ask.html",
        status,
        form=form,
        models=_list_choices(form.get("model"), models),
        has_workers=bool(models),
        mistakes=found,
        opens_more=any(name.startswith(_MORE) for name in found),
        reasons=_REASONS,
        preview=preview,
        codes=_list_codes(request, caller, form.make_body()),
        scope=scope,
        has_files=settings.gateway_files is not None,
        most_bytes=min(settings.max_source_bytes, key.max_file_bytes or settings.max_source_bytes),
        sample=settings.gateway_sample,
        sample_name=SAMPLE_NAME,
        sample_question=SAMPLE_QUESTION,
        may_read=key.may("read"),
        hides_text=settings.hide_text,
    )


def _list_choices(chosen: str, models: list[str]) -> list[tuple[str, str]]:
    """Lists the models to choose from: those of ready workers, and the one that is chosen."""
    found = [("", "Any: the workers' default"), *((one, one) for one in models)]
    if chosen and chosen not in models:
        found.append((chosen, f"{chosen} (no worker has it now)"))
    return found


async def _list_models(caller: Caller) -> list[str]:
    """Lists the models that ready workers announce."""

    async def read() -> list[str]:
        return sorted({one.model for one in await caller.client.workers() if one.ready})

    return await take_snapshot(caller, "models", read)
