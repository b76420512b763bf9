"""The example apps do what they say: ask, tell the status and the answer, refuse and stream."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from videoqa import Settings
from videoqa.testing import InMemoryAsyncClient, InMemoryClient

EXAMPLES = Path(__file__).parents[3] / "examples"
ASKED = {"video": "s3://videos/cat.mp4", "question": "What is the cat doing?"}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def memory() -> Iterator[InMemoryClient]:
    with InMemoryClient() as client:
        yield client


class Web:
    """Adapts the test clients of the frameworks to one interface."""

    def __init__(self, kind: str, memory: InMemoryClient) -> None:
        module = importlib.import_module(f"{kind}_app")
        self.kind = kind
        if kind == "flask":
            self._client = module.create_app(memory).test_client()
        elif kind == "fastapi":
            from fastapi.testclient import TestClient

            client = InMemoryAsyncClient(memory)
            module.app.dependency_overrides[module.get_client] = lambda: client
            self._client = TestClient(module.app)
        else:
            import django
            from django.conf import settings
            from django.test import Client as Browser
            from django.urls import clear_url_caches

            django.setup()
            settings.ROOT_URLCONF = "django_app"  # the first app of this process has set its own
            clear_url_caches()
            module.client = lambda: memory
            self._client = Browser()

    def post(self, body: dict[str, Any], key: str | None = None) -> tuple[int, Any]:
        return self.post_raw(json.dumps(body).encode(), key)

    def post_raw(self, body: bytes, key: str | None = None) -> tuple[int, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        if self.kind == "fastapi":
            headers["Content-Type"] = "application/json"
            answer = self._client.post("/questions", content=body, headers=headers)
        else:
            answer = self._client.post(
                "/questions", data=body, content_type="application/json", headers=headers
            )
        return answer.status_code, self._parse(answer)

    def get(self, job_id: str) -> tuple[int, Any]:
        answer = self._client.get(f"/questions/{job_id}")
        return answer.status_code, self._parse(answer)

    def stream(self, job_id: str) -> Any:
        return self._client.get(f"/questions/{job_id}/stream")

    def _parse(self, answer: Any) -> Any:
        return answer.get_json() if self.kind == "flask" else answer.json()


@pytest.mark.parametrize("kind", ["flask", "django", "fastapi"])
def test_an_app_asks_and_tells_the_answer(kind: str, memory: InMemoryClient) -> None:
    web = Web(kind, memory)
    status, job = web.post(ASKED, key="order-17")
    assert (status, job["state"]) == (202, "queued")
    assert web.post(ASKED, key="order-17")[1]["id"] == job["id"]
    assert web.get(job["id"])[1]["job"]["state"] == "queued"
    memory.finish(job["id"], "It sleeps.")
    assert web.get(job["id"])[1]["answer"] == "It sleeps."


@pytest.mark.parametrize("kind", ["flask", "django", "fastapi"])
def test_an_app_tells_what_is_wrong(kind: str, memory: InMemoryClient) -> None:
    web = Web(kind, memory)
    status, body = web.post({"video": "ftp://x", "question": "?"})
    assert (status, body["error"]["code"]) == (422, "invalid_request")
    for body in ({"video": 7}, {}):
        status, found = web.post(body)
        assert (status, found["error"]["code"]) == (422, "invalid_request")
    assert web.post_raw(b"{nonsense")[0] == web.post_raw(b"[]")[0] == 422
    web.post(ASKED, key="k")
    status, body = web.post({**ASKED, "question": "Why?"}, key="k")
    assert (status, body["error"]["code"]) == (409, "idempotency_conflict")
    status, body = web.get("job_never")
    assert (status, body["error"]["code"]) == (404, "job_not_found")


def test_a_fastapi_app_streams_the_answer(memory: InMemoryClient) -> None:
    web = Web("fastapi", memory)
    _, job = web.post(ASKED)
    assert web.stream("job_never").status_code == 404
    memory.say(job["id"], "It ")
    memory.say(job["id"], "sleeps.")
    memory.finish(job["id"], "It sleeps.")
    streamed = web.stream(job["id"])
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text == (
        "event: text\ndata: It \n\nevent: text\ndata: sleeps.\n\nevent: done\ndata:\n\n"
    )


def test_a_fastapi_app_tells_the_browser_why_a_job_failed(memory: InMemoryClient) -> None:
    web = Web("fastapi", memory)
    _, job = web.post(ASKED)
    memory.fail(job["id"], "source_not_found", "no such video", stage="fetching")
    assert web.stream(job["id"]).text == "event: failed\ndata: source_not_found\n\n"


def test_a_fastapi_app_has_a_client_of_its_own_while_it_runs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.setenv("VIDEOQA_REDIS_URL", settings.redis_url)
    monkeypatch.setenv("VIDEOQA_PREFIX", settings.prefix)
    module = importlib.import_module("fastapi_app")
    module.app.dependency_overrides.clear()
    with TestClient(module.app) as web:
        asked = web.post("/questions", json=ASKED)
        assert asked.status_code == 202
        assert web.get(f"/questions/{asked.json()['id']}").json()["job"]["state"] == "queued"
