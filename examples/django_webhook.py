"""A receiver of webhooks in a Django app: a view, its URL and the settings that it needs, in one file.

    pip install ./producer django
    WEBHOOK_SECRET=$(videoqa webhooks secret) python examples/django_webhook.py runserver

A call may come more than once, so what is done for one is done once for its id. In a project of your own, take the
view and `urlpatterns`.
"""

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from videoqa import WebhookCall, verify_webhook
from videoqa.errors import WebhookInvalid

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=False)

seen: set[str] = set()
"""Ids of the calls that came; an app with several processes has them in its database, as a unique column."""


def handle(call: WebhookCall) -> None:
    """Queues the work: a receiver that takes longer than 15 s is called again."""
    print(call.type, call.data["id"], call.data["custom_id"])


@csrf_exempt
@require_POST
def receive(request: HttpRequest) -> HttpResponse:
    try:
        # The bytes as they came: JSON that is written again has another signature.
        call = verify_webhook(request.body, request.headers, os.environ["WEBHOOK_SECRET"])
    except WebhookInvalid as error:
        return HttpResponse(error.message, status=400)
    if call.id not in seen:
        seen.add(call.id)
        handle(call)
    return HttpResponse(status=204)


urlpatterns = [path("webhooks/videoqa", receive)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
