"""Questions about videos in a Django app: views, URLs and the settings that they need, in one file.

    pip install ./producer django
    VIDEOQA_REDIS_URL=redis://127.0.0.1:6379/0 python examples/django_app.py runserver

In a project of your own, take the views and `urlpatterns`; `client` is made once a process.
"""

import sys
from collections.abc import Callable
from functools import cache, wraps

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST
from pydantic import BaseModel, ValidationError

from videoqa import Client, VideoQAError
from videoqa.errors import IdempotencyConflict, LookupFailed, QueueFull, RedisUnavailable

STATUS = (
    (LookupFailed, 404),
    (IdempotencyConflict, 409),
    (QueueFull, 503),
    (RedisUnavailable, 503),
)

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=False)


class Asked(BaseModel):
    video: str
    question: str


@cache
def client() -> Client:
    return Client.from_environment()


def handle_errors(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    @wraps(view)
    def wrapper(request: HttpRequest, *args: str, **kwargs: str) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except ValidationError as error:
            body = {"code": "invalid_request", "message": str(error)}
            return JsonResponse({"error": body}, status=422)
        except VideoQAError as error:
            status = next((code for kind, code in STATUS if isinstance(error, kind)), 422)
            failure = {"code": error.code, "message": error.message, "param": error.param}
            return JsonResponse({"error": failure}, status=status)

    return wrapper


@csrf_exempt
@require_POST
@handle_errors
def ask(request: HttpRequest) -> HttpResponse:
    asked = Asked.model_validate_json(request.body)
    job = client().submit(
        inputs=[asked.video],
        questions=[asked.question],
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    return JsonResponse(job.model_dump(mode="json"), status=202)


@require_GET
@handle_errors
def status(request: HttpRequest, job_id: str) -> HttpResponse:
    job = client().get(job_id)
    found: dict[str, object] = {"job": job.model_dump(mode="json")}
    if job.state == "succeeded":
        found["answer"] = client().result(job_id).answers[0].text
    return JsonResponse(found)


urlpatterns = [path("questions", ask), path("questions/<str:job_id>", status)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
