"""verify_webhook: it accepts what was signed, and says why it refuses anything else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as StandardWebhook

from videoqa import verify_webhook
from videoqa.errors import WebhookInvalid
from videoqa.webhooks import make_secret, sign

NOW = 1_764_495_000
SECRET = make_secret()
BODY = json.dumps({"type": "job.succeeded", "data": {"id": "job_1"}}).encode()


def headers(body: bytes = BODY, *, secret: str = SECRET, at_s: int = NOW) -> dict[str, str]:
    return sign(body, webhook_id="whd_1", timestamp_s=at_s, keys=[secret])


def refuse(body: Any = BODY, secret: str = SECRET, **changed: str | None) -> str:
    given = headers(body if isinstance(body, bytes) else BODY)
    for name, value in changed.items():
        if value is None:
            del given[f"webhook-{name}"]
        else:
            given[f"webhook-{name}"] = value
    with pytest.raises(WebhookInvalid) as caught:
        verify_webhook(body, given, secret, now_s=NOW)
    assert caught.value.code == "webhook_invalid"
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_a_signed_call_is_accepted() -> None:
    call = verify_webhook(BODY, headers(), SECRET, now_s=NOW)
    assert (call.id, call.type, call.data) == ("whd_1", "job.succeeded", {"id": "job_1"})
    shouted = {name.upper(): value for name, value in headers().items()}
    assert verify_webhook(BODY.decode(), shouted, SECRET, now_s=NOW) == call


def test_a_call_that_another_library_signed_is_accepted() -> None:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(NOW, UTC)
    signature = StandardWebhook(SECRET).sign("whd_1", at, BODY.decode())
    given = headers() | {"webhook-signature": "v1a,xx v1, " + signature}
    assert verify_webhook(BODY, given, SECRET, now_s=NOW).id == "whd_1"


def test_either_secret_of_a_rotation_is_right() -> None:
    other = make_secret()
    given = sign(BODY, webhook_id="whd_1", timestamp_s=NOW, keys=[other, SECRET])
    for secret in (SECRET, other):
        assert verify_webhook(BODY, given, secret, now_s=NOW).id == "whd_1"


@pytest.mark.parametrize("at", [0, len(BODY) // 2, len(BODY) - 1])
def test_one_byte_changed_is_refused(at: int) -> None:
    changed = BODY[:at] + bytes([BODY[at] ^ 1]) + BODY[at + 1 :]
    with pytest.raises(WebhookInvalid, match="no signature that is right"):
        verify_webhook(changed, headers(), SECRET, now_s=NOW)


@pytest.mark.parametrize(("late_s", "says"), [(301, "301 s old"), (-301, "301 s ahead")])
def test_a_call_that_is_too_old_or_early_is_refused(late_s: int, says: str) -> None:
    with pytest.raises(WebhookInvalid, match=says):
        verify_webhook(BODY, headers(), SECRET, now_s=NOW + late_s)
    assert verify_webhook(BODY, headers(), SECRET, now_s=NOW + late_s, tolerance_s=400)
    assert verify_webhook(BODY, headers(), SECRET, now_s=NOW + late_s * 300 / 301)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"id": None}, "got no header webhook-id"),
        ({"timestamp": None, "signature": None}, "webhook-timestamp, webhook-signature"),
        ({"signature": ""}, "got no header webhook-signature"),
        ({"timestamp": "soon"}, "expected seconds since 1970"),
        ({"timestamp": "1" * 400}, "expected seconds since 1970"),
        ({"timestamp": "\u0661"}, "expected seconds since 1970"),
        ({"id": "whd_2"}, "no signature that is right"),
        ({"timestamp": str(NOW + 1)}, "no signature that is right"),
        ({"signature": "v1"}, "no signature that is right"),
        ({"signature": "v1,"}, "no signature that is right"),
        ({"signature": "v1,\ud800é"}, "no signature that is right"),
        ({"signature": " " * 100_000}, "no signature that is right"),
    ],
)  # fmt: skip
def test_a_header_that_is_wrong_is_named(changed: dict[str, str | None], says: str) -> None:
    assert says in refuse(**changed)


def test_the_signature_of_another_version_does_not_count() -> None:
    right = headers()["webhook-signature"].partition(",")[2]
    assert "no signature" in refuse(signature=f"v2,{right} v1a,{right}")


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_!!!", "whsec_" + base64.b64encode(b"x" * 23).decode()]
)
def test_a_secret_that_is_none_is_named(secret: str) -> None:
    assert "the secret is not whsec_" in refuse(secret=secret)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"type":1,"data":{}}', b"[" * 9000])
def test_a_body_that_is_signed_and_no_event_is_refused(body: bytes) -> None:
    assert "is no event" in refuse(body)


def test_a_body_that_is_too_large_is_not_hashed() -> None:
    assert "1000001 bytes" in refuse(b"x" * 1_000_001)
