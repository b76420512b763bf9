"""A receiver of webhooks in a Flask app.

    pip install ./producer flask
    WEBHOOK_SECRET=$(videoqa webhooks secret) flask --app examples/flask_webhook run

A call may come more than once, so what is done for one is done once for its id.
"""

import os

from flask import Flask, request

from videoqa import WebhookCall, verify_webhook
from videoqa.errors import WebhookInvalid

app = Flask(__name__)
seen: set[str] = set()
"""Ids of the calls that came; an app with several processes has them in its database, as a unique column."""


def handle(call: WebhookCall) -> None:
    """Queues the work: a receiver that takes longer than 15 s is called again."""
    print(call.type, call.data["id"], call.data["custom_id"])


@app.post("/webhooks/videoqa")
def receive() -> tuple[str, int]:
    try:
        # The bytes as they came: JSON that is written again has another signature.
        call = verify_webhook(request.get_data(), request.headers, os.environ["WEBHOOK_SECRET"])
    except WebhookInvalid as error:
        return error.message, 400
    if call.id not in seen:
        seen.add(call.id)
        handle(call)
    return "", 204
