"""A receiver of webhooks in a FastAPI app.

    pip install ./producer fastapi uvicorn
    WEBHOOK_SECRET=$(videoqa webhooks secret) uvicorn --app-dir examples fastapi_webhook:app

A call may come more than once, so what is done for one is done once for its id.
"""

import os

from fastapi import BackgroundTasks, FastAPI, Request, Response

from videoqa import WebhookCall, verify_webhook
from videoqa.errors import WebhookInvalid

app = FastAPI()
seen: set[str] = set()
"""Ids of the calls that came; an app with several processes has them in its database, as a unique column."""


def handle(call: WebhookCall) -> None:
    """Does the work, after the answer: a receiver that takes longer than 15 s is called again."""
    print(call.type, call.data["id"], call.data["custom_id"])


@app.post("/webhooks/videoqa", status_code=204)
async def receive(request: Request, tasks: BackgroundTasks) -> Response:
    try:
        call = verify_webhook(await request.body(), request.headers, os.environ["WEBHOOK_SECRET"])
    except WebhookInvalid as error:
        return Response(error.message, status_code=400)
    if call.id not in seen:
        seen.add(call.id)
        tasks.add_task(handle, call)
    return Response(status_code=204, background=tasks)
