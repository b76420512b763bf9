"""The example receivers accept what a gateway signs, once for each id, and refuse anything else."""

from __future__ import annotations

import importlib
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from videoqa import WebhookCall
from videoqa.webhooks import make_secret, sign

EXAMPLES = Path(__file__).parents[3] / "examples"
SECRET = make_secret()
EVENT = {"type": "job.succeeded", "data": {"id": "job_1", "custom_id": None}}
BODY = json.dumps(EVENT, indent=1).encode()
KINDS = ("fastapi", "flask", "django")


class Web:
    """Adapts the test clients of the frameworks to one interface."""

    def __init__(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
        self.kind = kind
        self.handled: list[WebhookCall] = []
        module = importlib.import_module(f"{kind}_webhook")
        module.seen.clear()
        monkeypatch.setattr(module, "handle", self.handled.append)
        self._client: Any
        if kind == "fastapi":
            from fastapi.testclient import TestClient

            self._client = TestClient(module.app)
        elif kind == "flask":
            self._client = module.app.test_client()
        else:
            import django
            from django.test import Client as Browser

            django.setup()
            self._client = Browser()

    def post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        if self.kind == "fastapi":
            answer = self._client.post("/webhooks/videoqa", content=body, headers=headers)
        else:
            # Another app of this process has made other URLs Django's.
            urls = override_settings(ROOT_URLCONF="django_webhook")
            with urls if self.kind == "django" else nullcontext():
                answer = self._client.post(
                    "/webhooks/videoqa", data=body, content_type="application/json", headers=headers
                )
        text = answer.text if self.kind != "django" else answer.content.decode()
        return answer.status_code, text


@pytest.mark.parametrize("kind", KINDS)
def test_a_receiver_handles_each_id_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(kind, monkeypatch)
    for webhook_id in ("whd_1", "whd_1", "whd_2"):
        headers = sign(
            BODY, webhook_id=webhook_id, timestamp_s=int(time.time()), keys=[make_secret(), SECRET]
        )
        assert web.post(BODY, headers) == (204, "")
    assert [(call.id, call.data["id"]) for call in web.handled] == [
        ("whd_1", "job_1"),
        ("whd_2", "job_1"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_receiver_refuses_what_is_not_signed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(kind, monkeypatch)
    now = int(time.time())
    good = sign(BODY, webhook_id="whd_1", timestamp_s=now, keys=[SECRET])
    old = sign(BODY, webhook_id="whd_1", timestamp_s=now - 301, keys=[SECRET])
    for body, headers, says in (
        (BODY, {}, "got no header"),
        (BODY + b" ", good, "no signature"),
        (BODY, old, "s old"),
    ):
        status, text = web.post(body, headers)
        assert (status, says in text) == (400, True)
    assert web.handled == []
