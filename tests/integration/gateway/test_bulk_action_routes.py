"""Bulk actions by HTTP: who may, what the audit log says of them, and which gateway carries them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import redis
from support.processes import wait_until
from support.worker import fail

from videoqa import Client
from videoqa.gateway.access.audit import AuditLog
from videoqa.gateway.access.keys import KeyStore
from videoqa.jobs import BulkActions, KeyQuota, Ledger
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

ASKED = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"], "tags": ["t"]}


def submit(http: httpx.Client, count: int) -> list[str]:
    rows = http.post("/v1/jobs:batch", json={"jobs": [ASKED] * count}).json()["jobs"]
    return [row["job"]["id"] for row in rows]


def wait_for_end(http: httpx.Client, bulk_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = http.get(f"/v1/bulk-actions/{bulk_id}").json()
        return found if found["status"] not in ("pending", "running") else None

    return wait_until(look)


def test_an_action_is_previewed_carried_out_and_noted(
    connect: Connect, settings: Settings, redis_client: redis.Redis
) -> None:
    http = connect("submit", "read", tenant="a")
    submit(http, 120)
    asked: dict[str, Any] = {"action": "cancel", "filter": {"tag": "t"}}
    preview = http.post("/v1/bulk-actions", json=asked | {"dry_run": True})
    assert (preview.status_code, preview.json()["count"]["count"]) == (200, 120)
    assert len(preview.json()["examples"]) == 5
    late = submit(http, 1)
    begun = http.post(
        "/v1/bulk-actions",
        json=asked | {"cut_off": preview.json()["cut_off"]},
        headers={"idempotency-key": "twice"},
    )
    assert begun.status_code == 202
    again = http.post("/v1/bulk-actions", json=asked, headers={"idempotency-key": "twice"})
    assert again.json()["id"] == begun.json()["id"]
    ended = wait_for_end(http, begun.json()["id"])
    assert (ended["status"], ended["changed"], ended["tenant"]) == ("completed", 120, "a")
    assert http.get("/v1/jobs/count", params={"state": "queued"}).json()["count"] == 1
    assert http.get(f"/v1/jobs/{late[0]}").json()["state"] == "queued"
    log = AuditLog(redis_client, url=settings.redis_url, prefix=settings.prefix)
    noted = next(one for one in log.read() if one.detail.startswith("120"))
    assert (noted.what, noted.detail) == ("bulk cancel", "120 jobs with tag=t")
    assert noted.who == ended["who"]


def test_an_action_without_a_filter_or_a_number_is_refused(connect: Connect) -> None:
    http = connect("submit")
    for body, param in (
        ({"action": "cancel", "filter": {}}, "filter"),
        ({"action": "cancel"}, "filter"),
        ({"action": "cancel", "filter": {"until": "2036-12-01T00:00:00Z"}}, "filter"),
        ({"action": "burn", "filter": {"tag": "t"}}, "action"),
        ({"action": "purge", "filter": {"tag": "t"}}, "expected"),
        ({"action": "retry", "filter": {"state": "running"}}, "state"),
        ({"action": "cancel", "filter": {"moon": "full"}}, "filter.moon"),
    ):
        answer = http.post("/v1/bulk-actions", json=body)
        assert (answer.status_code, answer.json()["param"]) == (400, param)


def test_the_work_of_a_killed_gateway_is_taken_on(
    connect: Connect, keys: KeyStore, settings: Settings, ledger: Ledger, redis_client: redis.Redis
) -> None:
    """The dead gateway is played by a client with its key, which does one batch and says no more."""
    http = connect("submit", "read", tenant="a")
    key_id = keys.list()[-1].id
    submit(http, 150)
    with Client(settings=settings, tenant="a") as client:
        dead = client._for_key(KeyQuota(key_id))
        bulk = BulkActions(ledger.for_tenant("a"))
        due = f"{settings.prefix}:bulks:due"
        begun = dead.start_bulk("cancel", tag="t")
        if bulk.take("dead", begun.id) is not None:  # else the gateway was faster
            bulk.change(begun, bulk.look(begun), holder="dead", ring=lambda _: None)
            redis_client.zadd(due, {begun.id: 0.0}, xx=True)  # its lease ends
    ended = wait_for_end(http, begun.id)
    assert (ended["status"], ended["changed"]) == ("completed", 150)


def test_an_action_whose_record_is_broken_ends(
    connect: Connect, settings: Settings, redis_client: redis.Redis
) -> None:
    """Else some gateway would try it every few seconds for ever, and a page would show it as running."""
    http = connect("submit", "read", tenant="a")
    submit(http, 1)
    body = {"action": "cancel", "filter": {"tag": "t"}}
    for broken in ({"at": "x", "at_id": "y"}, {"info": "no JSON"}):
        begun = http.post("/v1/bulk-actions", json=body).json()["id"]
        wait_for_end(http, begun)
        key, due = f"{settings.prefix}:bulk:{begun}", f"{settings.prefix}:bulks:due"
        redis_client.hset(key, mapping={"status": "running", **broken})
        redis_client.zadd(due, {begun: 0.0})
        wait_until(lambda key=key: redis_client.hget(key, "status") == "stopped")
        assert redis_client.zscore(due, begun) is None


def test_an_action_stops_when_its_key_is_revoked(
    connect: Connect, keys: KeyStore, settings: Settings, ledger: Ledger
) -> None:
    http, other = connect("submit", "read", tenant="a"), connect("read", tenant="a")
    revoked = next(one for one in keys.list() if "submit" in one.roles)
    submit(http, 2)
    fail(ledger)
    keys.revoke(revoked.id)
    with Client(settings=settings, tenant="a") as client:
        begun = client._for_key(KeyQuota(revoked.id)).start_bulk("retry", tag="t")
    ended = wait_for_end(other, begun.id)
    assert (ended["status"], ended["changed"]) == ("stopped", 0)
    assert "no longer valid" in ended["message"]
