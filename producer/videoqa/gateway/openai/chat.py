"""Chat completions: OpenAI's `POST /v1/chat/completions` as an interactive job, canceled when its caller hangs up."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from videoqa import errors
from videoqa.contract import Job, Result, parse_request
from videoqa.gateway.access.caller import Caller, Submitter
from videoqa.gateway.http.bodies import read_object
from videoqa.gateway.http.event_stream import EventStream, ServerEvent, wait_until_gone
from videoqa.gateway.http.idempotency import (
    derive_key,
    digest_body,
    is_retry,
    parse_idempotency_key,
)
from videoqa.gateway.http.problems import (
    GatewayStopping,
    HttpError,
    find_code,
    find_message,
    find_status,
)
from videoqa.gateway.openai.answer_text import AnswerText
from videoqa.gateway.openai.chat_request import ChatRequest, parse_chat
from videoqa.gateway.openai.completion import (
    count_usage,
    make_completion,
    make_head,
    name_finish,
)
from videoqa.gateway.openai.envelope import describe_error
from videoqa.gateway.openai.job_failures import make_job_error
from videoqa.gateway.openai.schemas import ChatBody, ChatCompletion, ChatCompletionChunk
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import EVENT_STREAM, Answer, Content, document
from videoqa.gateway.reference.parameters import IdempotencyKey, RetryCount
from videoqa.gateway.resources import Resources
from videoqa.jobs import digest_idempotency_key, queue_name

__all__ = ["router"]

router = APIRouter(prefix="/v1/chat", tags=["OpenAI"])

LIMIT_S = 570.0
"""Longest time of a chat: OpenAI's clients give up after 600 s, without the job's id."""
JOB_HEADER = "x-videoqa-job-id"
_ERRORS = (
    "answer_changed", "empty_question", "gateway_stopping", "idempotency_conflict", "input_not_allowed",
    "mark_mismatch", "model_error", "model_not_found", "no_media", "queue_full", "wait_timeout", ("canceled", 409),
    ("job_timeout", 504), ("not_a_video", 400), ("prompt_too_long", 400), ("source_not_found", 400),
    ("source_unreachable", 502), ("start_by_passed", 503),
)  # fmt: skip


class ChatCall:
    """One caller of a chat, and the job that answers it."""

    job: Job
    """Set by `begin`."""

    def __init__(
        self, resources: Resources, caller: Caller, asked: ChatRequest, ends_s: float
    ) -> None:
        self.asked = asked
        self.headers: dict[str, str] = {}
        self._id = secrets.token_hex(8)
        self._resources = resources
        self._caller = caller
        self._client = caller.client
        self._ends_s = ends_s
        self._of = ""
        """The digest of the idempotency key."""
        self._goes_on = False
        """True if the job is final, or goes on without a caller on purpose."""

    async def begin(self, digest: str, idempotency_key: str, *, joins: bool) -> None:
        """Submits the job, or joins that of an earlier call.

        Arguments:
            digest: that of the API key and the body, by which retries find the job.
            joins: an earlier call has this key; its job was canceled if its caller had hung up.
        """
        self._of = digest_idempotency_key(self._caller.key.tenant, idempotency_key)
        self.asked.job["idempotency_key"] = idempotency_key
        await self._resources.chats.join(self._of, self._id, digest, idempotency_key)
        try:
            job = await self._caller.submit(parse_request(self.asked.job))
            if job.state == "canceled" and joins:
                job = await self._caller.retry(job.id)
        except (errors.RequestError, errors.RateLimited, errors.QueueFull, HttpError) as error:
            self._goes_on = True  # nothing was submitted; the job of this key, if there is one, is another call's
            raise self.asked.translate(error) from None
        self.job = job
        self.headers = {JOB_HEADER: job.id}

    async def read_answer(self) -> Result:
        """Waits for the whole answer."""
        try:
            self.job = await self._client.wait(self.job.id, timeout_s=self._get_time_left())
            return await self._read_result()
        except errors.VideoQAError as error:
            raise await self._explain(error) from error

    async def read_chunks(self) -> AsyncIterator[ServerEvent]:
        """Yields the answer's chunks as it is generated, up to the mark of the end."""
        text = AnswerText()
        try:
            events = self._client.events(self.job.id, timeout_s=self._get_time_left())
            async with aclosing(cast("Any", events)):
                async for event in events:
                    is_first = not text.sent
                    if piece := text.add(event):
                        yield self._make_chunk(piece, is_first=is_first)
            result = await self._read_result()
            answer = result.answers[0]
            is_first = not text.sent
            piece = text.complete(answer.text)
            if piece or is_first:
                yield self._make_chunk(piece, is_first=is_first)
        except errors.VideoQAError as error:
            raise await self._explain(error) from error
        yield self._make_event([{"delta": {}, "finish_reason": name_finish(answer.finish_reason)}])
        if self.asked.include_usage:
            yield self._make_event([], usage=count_usage(result))
        yield ServerEvent("[DONE]")

    def make_body(self, result: Result) -> dict[str, Any]:
        """Makes the body of the whole answer."""
        return make_completion(self.job, result, self.asked.model)

    def end(self) -> None:
        """Ends the call; its job is canceled if it goes on and has no other caller."""
        chats = self._resources.chats
        if self._resources.stop.is_set() and not self._goes_on:
            chats.abandon(self._id)
        else:
            chats.leave(self._client, self._of, self._id, cancels=not self._goes_on)

    def _get_time_left(self) -> float:
        return max(0.001, self._ends_s - asyncio.get_running_loop().time())

    async def _read_result(self) -> Result:
        result = await self._client.result(self.job.id)
        self._goes_on = True
        return result

    async def _explain(self, error: errors.VideoQAError) -> HttpError:
        """Makes an error of the chat: the status is that of the job's failure, and the headers name the job."""
        found = error
        if isinstance(error, errors.WaitTimeout):
            self._goes_on = True
            found = HttpError(
                504,
                error.code,
                f"job {self.job.id} has not ended in the {LIMIT_S:g} s of a chat, and goes on: GET "
                f"/v1/jobs/{self.job.id}?wait=60",
                headers={"x-should-retry": "false"},
            )
        elif isinstance(error, errors.JobFailed):
            self._goes_on = True
            self.job = await self._client.get(self.job.id)
            found = self.asked.translate(make_job_error(self.job, error))
        given = found.headers if isinstance(found, HttpError) else {}
        return HttpError(
            find_status(found),
            find_code(found),
            find_message(found),
            param=found.param,
            headers=given | self.headers,
        )

    def _make_chunk(self, text: str, *, is_first: bool) -> ServerEvent:
        delta = ({"role": "assistant"} if is_first else {}) | {"content": text}
        return self._make_event([{"delta": delta, "finish_reason": None}])

    def _make_event(
        self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None
    ) -> ServerEvent:
        head = make_head(self.job, "chat.completion.chunk", self.asked.model or "default")
        body = head | {"choices": [{"index": 0, "logprobs": None} | one for one in choices]}
        return ServerEvent(body | {"usage": usage} if self.asked.include_usage else body)


class ChatStream(EventStream):
    """The streamed answer of a call, which ends the call whichever way it ends."""

    def __init__(self, call: ChatCall, stop: asyncio.Event) -> None:
        super().__init__(
            call.read_chunks(),
            stop=stop,
            headers=call.headers,
            describe=lambda error: ServerEvent(describe_error(error)),
        )
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the chunks."""
        try:
            await super().__call__(scope, receive, send)
        except GatewayStopping:
            raise GatewayStopping(self._call.headers) from None
        finally:
            self._call.end()


@router.post("/completions")
@document(
    "create_chat_completion",
    body=Content(ChatBody, examples.CHAT_ASKED),
    answers={
        200: Answer(
            "The answer; with `stream` as server-sent events, each with a `ChatCompletionChunk` as its data, and "
            "`[DONE]` at the end.",
            Content(ChatCompletion, examples.CHAT_ANSWER),
            Content(ChatCompletionChunk, examples.CHAT_CHUNKS, EVENT_STREAM),
            headers={"X-Videoqa-Job-Id": "Id of the job that answers."},
        )
    },
    errors=_ERRORS,
)
async def complete(
    request: Request,
    caller: Submitter,
    idempotency_key: IdempotencyKey = None,
    retry_count: RetryCount = None,
) -> Response:
    """Answers a question about the videos and images of one message, whole or as server-sent events."""
    ends_s = asyncio.get_running_loop().time() + LIMIT_S
    resources = cast(Resources, request.app.state.resources)
    body = await read_object(request)
    asked = parse_chat(body)
    await _check_model(caller, asked.model, resources.settings.prefix)
    await resources.inline_media.settle(asked, caller.key.tenant)
    digest = await resources.run(digest_body, [caller.key.id, body])
    given = parse_idempotency_key(idempotency_key)
    key = None
    if given is not None:
        key = derive_key("chat", given, 0)
    elif is_retry(retry_count):
        key = await resources.chats.find(caller.client, digest, caller.key.tenant)
    call = ChatCall(resources, caller, asked, ends_s)
    try:
        await call.begin(digest, key or f"chat-{secrets.token_hex(16)}", joins=key is not None)
        if asked.stream:
            return ChatStream(call, resources.stop)
    except BaseException:
        call.end()
        raise
    return await _answer_whole(request, resources, call)


async def _answer_whole(request: Request, resources: Resources, call: ChatCall) -> Response:
    """Waits for the answer for as long as the caller does."""
    answering = asyncio.ensure_future(call.read_answer())
    leaving = asyncio.ensure_future(wait_until_gone(request.receive))
    stopping = asyncio.ensure_future(resources.stop.wait())
    try:
        await asyncio.wait([answering, leaving, stopping], return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return JSONResponse(call.make_body(answering.result()), headers=call.headers)
        if leaving.done():
            return Response(status_code=499)  # nobody reads it
        raise GatewayStopping(call.headers)
    finally:
        for task in (answering, leaving, stopping):
            task.cancel()
        call.end()


async def _check_model(caller: Caller, model: str | None, prefix: str) -> None:
    """Refuses a model that no worker serves, if there are workers: without any, the job waits for one."""
    if model is None:
        return
    workers = await caller.client.workers()
    if workers and not any(
        queue_name(prefix, model, "interactive") in worker.queues for worker in workers
    ):
        served: Mapping[str, None] = dict.fromkeys(worker.model for worker in workers)
        raise HttpError(
            404,
            "model_not_found",
            f"model: got {model!r:.100}, expected one that a worker serves: {', '.join(served)}",
            param="model",
        )
