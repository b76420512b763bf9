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

from fastapi import Depends, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from videoqa import AsyncClient, Job, VideoQAError
from videoqa.errors import IdempotencyConflict, JobFailed, LookupFailed, QueueFull, RedisUnavailable


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncClient.from_environment() as client:
        app.state.videoqa = client
        yield


async def get_client(request: Request) -> AsyncClient:
    """Returns the app's client; a test puts an `InMemoryAsyncClient` into `app.dependency_overrides`."""
    client: AsyncClient = request.app.state.videoqa
    return client


app = FastAPI(lifespan=lifespan)
VideoQA = Annotated[AsyncClient, Depends(get_client)]


class Asked(BaseModel):
    video: str
    question: str


@app.post("/questions", status_code=202)
async def ask(
    asked: Asked, client: VideoQA, idempotency_key: Annotated[str | None, Header()] = None
) -> Job:
    return await client.submit(
        inputs=[asked.video],
        questions=[asked.question],
        stream=True,
        idempotency_key=idempotency_key,
    )


@app.get("/questions/{job_id}")
async def status(job_id: str, client: VideoQA) -> dict[str, object]:
    job = await client.get(job_id)
    found: dict[str, object] = {"job": job}
    if job.state == "succeeded":
        found["answer"] = (await client.result(job_id)).answers[0].text
    return found


@app.get("/questions/{job_id}/stream")
async def stream(job_id: str, client: VideoQA) -> StreamingResponse:
    """Streams server-sent events.

    `text` has the next piece; `restart`: the answer begins again; `done` comes last, or `failed` with the code of
    what went wrong, such as `source_not_found`.
    """
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
            cause = error.failure if isinstance(error, JobFailed) and error.failure else error
            yield f"event: failed\ndata: {cause.code}\n\n"
        else:
            yield "event: done\ndata:\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


STATUS = (
    (LookupFailed, 404),
    (IdempotencyConflict, 409),
    (QueueFull, 503),
    (RedisUnavailable, 503),
)


@app.exception_handler(RequestValidationError)
async def handle_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    return JSONResponse({"error": {"code": "invalid_request", "message": str(error)}}, 422)


@app.exception_handler(VideoQAError)
async def handle_error(request: Request, error: VideoQAError) -> JSONResponse:
    status = next((code for kind, code in STATUS if isinstance(error, kind)), 422)
    body = {"code": error.code, "message": error.message, "param": error.param}
    return JSONResponse({"error": body}, status_code=status)
