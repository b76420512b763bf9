r"""Questions about videos in a FastAPI app.

    pip install ./producer fastapi uvicorn
    VIDEOQA_REDIS_URL=redis://127.0.0.1:6379/0 uvicorn --app-dir examples fastapi_app:app

    curl -d '{"video": "s3://videos/cat.mp4", "question": "What is the cat doing?"}' \
         -H 'Content-Type: application/json' -H 'Idempotency-Key: order-17' localhost:8000/questions
    curl localhost:8000/questions/job_...
    curl -N localhost:8000/questions/job_.../stream
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from videoqa import AsyncClient, Job, VideoQAError
from videoqa.errors import IdempotencyConflict, LookupFailed, QueueFull, RedisUnavailable


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncClient.from_environment() as client:
        app.state.videoqa = client
        yield


app = FastAPI(lifespan=lifespan)


class Asked(BaseModel):
    video: str
    question: str


@app.post("/questions", status_code=202)
async def ask(
    asked: Asked, request: Request, idempotency_key: Annotated[str | None, Header()] = None
) -> Job:
    client: AsyncClient = request.app.state.videoqa
    return await client.submit(
        inputs=[asked.video],
        questions=[asked.question],
        stream=True,
        idempotency_key=idempotency_key,
    )


@app.get("/questions/{job_id}")
async def status(job_id: str, request: Request) -> dict[str, object]:
    client: AsyncClient = request.app.state.videoqa
    job = await client.get(job_id)
    found: dict[str, object] = {"job": job}
    if job.state == "succeeded":
        found["answer"] = (await client.result(job_id)).answers[0].text
    return found


@app.get("/questions/{job_id}/stream")
async def stream(job_id: str, request: Request) -> StreamingResponse:
    """Streams server-sent events.

    `text` has the next piece; `restart`: the answer begins again; `done` or `failed` comes last.
    """
    client: AsyncClient = request.app.state.videoqa
    await client.get(job_id)  # an unknown id is an error before the stream begins

    async def events() -> AsyncIterator[str]:
        attempt = 0
        try:
            async for piece in client.stream(job_id):
                if piece.again or attempt not in (0, piece.attempt):
                    yield "event: restart\ndata:\n\n"
                attempt = piece.attempt
                lines = "".join(f"data: {line}\n" for line in re.split(r"\r\n|\r|\n", piece.text))
                yield f"event: text\n{lines}\n"
        except VideoQAError as error:
            yield f"event: failed\ndata: {error.code}\n\n"
        else:
            yield "event: done\ndata:\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


STATUS = (
    (LookupFailed, 404),
    (IdempotencyConflict, 409),
    (QueueFull, 503),
    (RedisUnavailable, 503),
)


@app.exception_handler(VideoQAError)
async def handle_error(request: Request, error: VideoQAError) -> JSONResponse:
    status = next((code for kind, code in STATUS if isinstance(error, kind)), 422)
    body = {"code": error.code, "message": error.message, "param": error.param}
    return JSONResponse({"error": body}, status_code=status)
