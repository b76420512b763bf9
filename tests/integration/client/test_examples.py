"""The example apps do what they say: ask, tell the status and the answer, refuse and stream."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.worker import begin, finish

from videoqa import Settings
from videoqa.jobs import Ledger, Progress
from videoqa.testing import InMemoryClient

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
        if kind == "flask":
            self._client = module.create_app(memory).test_client()
        else:
            import django
            from django.test import Client as Browser

            django.setup()
            module.client = lambda: memory
            self._client = Browser()

    def post(self, body: dict[str, Any], key: str | None = None) -> tuple[int, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        if "flask" in type(self._client).__module__:
            answer = self._client.post("/questions", json=body, headers=headers)
            return answer.status_code, answer.get_json()
        answer = self._client.post(
            "/questions", data=body, content_type="application/json", headers=headers
        )
        return answer.status_code, answer.json()

    def post_raw(self, body: bytes) -> tuple[int, Any]:
        answer = self._client.post("/questions", data=body, content_type="application/json")
        return answer.status_code, answer.text if hasattr(answer, "text") else answer.content

    def get(self, job_id: str) -> tuple[int, Any]:
        answer = self._client.get(f"/questions/{job_id}")
        found = answer.get_json() if hasattr(answer, "get_json") else answer.json()
        return answer.status_code, found


@pytest.mark.parametrize("kind", ["flask", "django"])
def test_an_app_asks_and_tells_the_answer(kind: str, memory: InMemoryClient) -> None:
    web = Web(kind, memory)
    status, job = web.post(ASKED, key="order-17")
    assert (status, job["state"]) == (202, "queued")
    assert web.post(ASKED, key="order-17")[1]["id"] == job["id"]
    assert web.get(job["id"])[1]["job"]["state"] == "queued"
    memory.finish(job["id"], "It sleeps.")
    assert web.get(job["id"])[1]["answer"] == "It sleeps."


@pytest.mark.parametrize("kind", ["flask", "django"])
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


def test_a_fastapi_app_streams_the_answer(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.setenv("VIDEOQA_REDIS_URL", settings.redis_url)
    monkeypatch.setenv("VIDEOQA_PREFIX", settings.prefix)
    sys.modules.pop("fastapi_app", None)
    module = importlib.import_module("fastapi_app")
    with TestClient(module.app) as web:
        key = {"Idempotency-Key": "k"}
        asked = web.post("/questions", json=ASKED, headers=key)
        job_id = asked.json()["id"]
        assert asked.status_code == 202
        assert web.post("/questions", json=ASKED, headers=key).json()["id"] == job_id
        other = web.post("/questions", json={**ASKED, "question": "Why?"}, headers=key)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")
        assert web.get("/questions/job_never").status_code == 404
        assert web.get("/questions/job_never/stream").status_code == 404
        claim = begin(ledger)
        ledger.progress(job_id, "t", Progress("generating", question_id="q1", text="It "))
        ledger.progress(job_id, "t", Progress("generating", question_id="q1", text="sleeps."))
        finish(ledger, claim, q1="It sleeps.")
        assert web.get(f"/questions/{job_id}").json()["answer"] == "It sleeps."
        streamed = web.get(f"/questions/{job_id}/stream")
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text == (
        "event: text\ndata: It \n\nevent: text\ndata: sleeps.\n\nevent: done\ndata:\n\n"
    )
