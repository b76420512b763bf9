"""Pages of runs, queues, workers, keys, webhooks and the audit log: who sees and changes what, and hostile words."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import httpx
import pytest
import redis
from support.processes import wait_until
from support.worker import announce, begin, finish

from videoqa import Client
from videoqa.contract import FailedRow, RunFailures, RunReport
from videoqa.gateway.access.audit import AuditLog
from videoqa.gateway.access.keys import KeyStore, WrongKey
from videoqa.jobs import Ledger
from videoqa.settings import Settings

pytestmark = pytest.mark.usefixtures("fresh_snapshots")

Connect = Callable[..., httpx.Client]

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
RUN = "run_" + "0" * 24


def read(answer: httpx.Response) -> str:
    """Returns the page; nothing that a stranger wrote is an element in it."""
    assert answer.status_code in (200, 201), answer.text[:500]
    assert "<script>alert" not in answer.text
    assert "<img src=x" not in answer.text
    return unescape(answer.text)


def find_field(text: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', text)
    assert found, name
    return found[1]


def announce_run(client: Client, **fields: Any) -> None:
    rows = (FailedRow(row=f"{HOSTILE}.mp4", message=HOSTILE, job_id="job_1"),)
    client.announce_run(
        RunReport(
            id=RUN, kind="caption", name=f"{HOSTILE} https://me:secret@h/x?token=1", output="s3://me:secret@b/out",
            host=HOSTILE, total=1000, done=400, skipped=100, failed=1, rate=2.0,
            failures=(RunFailures(code="source_not_found", count=1, examples=rows),), **fields,
        ),
        begins=True,
    )  # fmt: skip


def test_a_run_shows_progress_failures_and_results_to_its_tenant(
    connect: Connect, settings: Settings
) -> None:
    with Client(settings=settings) as client:
        assert "videoqa caption" in read(connect("read").get("/runs"))
        announce_run(client, tenant="a")
        own, other = connect("read", tenant="a"), connect("read", tenant="b")
        listed = read(own.get("/runs", params={"state": "running", "q": "alert"}))
        assert f"{HOSTILE} https://h/x" in listed
        assert "501 / 1,000" in listed
        assert "2/s" in listed
        shown = read(own.get(f"/runs/{RUN}"))
        for words in (
            f"{HOSTILE}.mp4",
            "source_not_found",
            "s3://b/out",
            "501 of 1,000 rows",
            "4 min 10 s",
        ):
            assert words in shown.replace("\xa0", " "), words
        assert "secret" not in shown
        assert "No such run" in read(own.get("/runs", params={"q": "nothing like it"}))
        assert other.get(f"/runs/{RUN}").status_code == 404
        assert RUN not in read(other.get("/runs"))
        client.announce_run(
            RunReport(id=RUN, kind="caption", name="x", tenant="a", state="failed", message=HOSTILE)
        )
        assert "The run ended early" in read(own.get(f"/runs/{RUN}"))


def test_a_queue_is_paused_and_resumed_by_an_operator_once(
    connect: Connect, settings: Settings, ledger: Ledger, redis_client: redis.Redis
) -> None:
    log = AuditLog(redis_client, url=settings.redis_url, prefix=settings.prefix)
    operator, reader = connect("operate", "read"), connect("read")
    assert "No queue yet" in read(reader.get("/queues"))
    with Client(settings=settings) as client:
        client.submit(inputs=["s3://b/x.mp4"], questions=["?"], model=HOSTILE)
        shown = read(operator.get("/queues"))
        assert "1 job waits without a worker" in shown
        assert "/queues/pause" in shown
        assert "/queues/pause" not in read(reader.get("/queues"))
        fields = {"model": HOSTILE, "priority": "interactive"}
        before = len(log.read())
        for expected in ("Paused:", "Nothing to change:"):
            answer = operator.post("/queues/pause", data=fields)
            assert answer.status_code == 303
            operator.cookies.clear()
            assert [queue.paused for queue in client.queues()] == [True], expected
        entry, *_ = log.read()
        assert len(log.read()) == before + 2
        assert (entry.what, entry.on) == ("POST /queues/{change}", f"{HOSTILE}, interactive")
        assert reader.post("/queues/pause", data=fields).status_code == 403
        assert connect("operate", tenant="a").post("/queues/pause", data=fields).status_code == 403
        assert operator.post("/queues/stop", data=fields).status_code == 400
        assert operator.post("/queues/resume", data=fields).status_code == 303
        assert [queue.paused for queue in client.queues()] == [False]


def test_workers_are_shown_to_operators(connect: Connect, ledger: Ledger) -> None:
    operator = connect("operate")
    assert "No worker" in read(operator.get("/workers"))
    announce(ledger, HOSTILE)
    assert HOSTILE in read(operator.get("/workers"))
    assert "No worker has this text" in read(operator.get("/workers", params={"q": "nothing"}))
    assert connect("read").get("/workers").status_code == 403


def test_an_administrator_makes_rotates_and_revokes_a_key(
    connect: Connect, keys: KeyStore, settings: Settings, redis_client: redis.Redis
) -> None:
    log = AuditLog(redis_client, url=settings.redis_url, prefix=settings.prefix)
    admin = connect("admin")
    key_id = find_field(read(admin.get("/keys/new")), "id")
    fields = {
        "id": key_id, "name": HOSTILE, "roles": ["submit", "read"], "tenant": "a", "rate": "10/s",
        "open_jobs": "1,000", "inputs": "https://a.org/\ns3://b/", "expires_at": "2099-01-01",
    }  # fmt: skip
    wrong = admin.post("/keys", data=fields | {"open_jobs": "many"})
    assert wrong.status_code == 400
    assert find_field(wrong.text, "id") == key_id
    assert 'value="10/s"' in wrong.text
    before = len(log.read())
    made = read(admin.post("/keys", data=fields))
    text = re.search(r"vqa_[0-9A-Za-z_]+", made)
    assert text
    key = keys.check(text[0])
    assert (key.id, key.roles, key.tenant, key.open_jobs, key.inputs) == (
        key_id, ("submit", "read"), "a", 1000, ("https://a.org/", "s3://b/")
    )  # fmt: skip
    again = admin.post("/keys", data=fields)
    assert (again.status_code, again.headers["location"]) == (303, "/keys")
    assert [key.name for key in keys.list()].count(HOSTILE) == 1
    assert [entry.what for entry in log.read()][: len(log.read()) - before] == ["keys create"]
    listed = read(admin.get("/keys", params={"q": "alert"}))
    assert HOSTILE in listed
    shown = read(admin.get(f"/keys/{key_id}"))
    assert text[0] not in listed + shown
    rotate = {"rotated_at": find_field(shown, "rotated_at"), "overlap_s": "0"}
    new = re.search(r"vqa_[0-9A-Za-z_]+", read(admin.post(f"/keys/{key_id}/rotate", data=rotate)))
    assert new
    assert admin.post(f"/keys/{key_id}/rotate", data=rotate).status_code == 303
    assert keys.check(new[0]).id == key_id
    with pytest.raises(WrongKey):
        keys.check(text[0])
    for _ in range(2):
        assert admin.post(f"/keys/{key_id}/revoke").headers["location"] == "/keys"
    assert keys.find(key_id) is None
    changes = [entry.what for entry in log.read() if entry.on == key_id]
    assert changes == ["keys revoke", "keys rotate", "keys create"]


def test_keys_and_the_audit_log_are_for_administrators_of_all_tenants(connect: Connect) -> None:
    for http in (connect("operate", "read", "submit"), connect("admin", tenant="a")):
        for path in ("/keys", "/keys/new", "/audit"):
            answer = http.get(path)
            assert answer.status_code == 403, path
            assert "<h1>This key may not do that</h1>" in answer.text
        assert http.post("/keys", data={"name": "x"}).status_code == 403


def test_the_audit_log_is_searched_and_paged(
    connect: Connect, keys: KeyStore, settings: Settings, redis_client: redis.Redis
) -> None:
    admin = connect("admin")
    for number in range(60):
        keys.create(f"{HOSTILE} {number}", ["read"])
    first = read(admin.get("/audit"))
    assert f"{HOSTILE} 59" in first
    assert f"{HOSTILE} 3:" not in first
    more = re.search(r'href="([^"]*cursor=[^"]*)"', first)
    assert more
    assert f"{HOSTILE} 3:" in read(admin.get(more[1]))
    found = read(admin.get("/audit", params={"q": "ALERT(2)> 41"}))
    assert f"{HOSTILE} 41" in found
    assert f"{HOSTILE} 42" not in found
    assert "No entry has this text" in read(admin.get("/audit", params={"q": "nothing"}))
    body = admin.get("/v1/audit", params={"q": "41", "limit": 1}).json()
    assert [entry["detail"][:50] for entry in body["entries"]] == [f"{HOSTILE} 41"[:50]]


def test_a_webhook_is_sent_again_once_for_a_page(
    connect: Connect, settings: Settings, ledger: Ledger
) -> None:
    owner, other = connect("submit", "read", tenant="a"), connect("submit", "read", tenant="b")
    assert "No job had a webhook yet" in read(owner.get("/webhooks"))
    asked = {
        "inputs": ["https://a.org/x.mp4"], "questions": ["?"], "webhook": "https://127.0.0.1/hook?token=secret",
    }  # fmt: skip
    job_id = owner.post("/v1/jobs", json=asked).json()["id"]
    finish(ledger, begin(ledger), q1="a cat")
    wait_until(lambda: "https://127.0.0.1/hook" in owner.get("/webhooks").text)
    wait_until(lambda: owner.get("/v1/webhooks/deliveries").json()["deliveries"][0]["log"])
    listed = read(owner.get("/webhooks", params={"job": job_id}))
    assert "secret" not in listed
    assert job_id not in read(other.get("/webhooks"))
    delivery_id = owner.get("/v1/webhooks/deliveries").json()["deliveries"][0]["id"]
    shown = read(owner.get(f"/webhooks/{delivery_id}"))
    seen = {"seen": find_field(shown, "seen")}
    assert other.get(f"/webhooks/{delivery_id}").status_code == 404
    assert other.post(f"/webhooks/{delivery_id}/replay", data=seen).status_code == 404
    path = f"/v1/webhooks/deliveries/{delivery_id}"
    tries = len(owner.get(path).json()["log"])
    assert owner.post(f"/webhooks/{delivery_id}/replay", data=seen).status_code == 303
    wait_until(lambda: len(owner.get(path).json()["log"]) > tries)
    before = owner.get(path).json()
    owner.post(f"/webhooks/{delivery_id}/replay", data=seen)
    assert owner.get(path).json() == before, "an old page sends nothing"
    reader = connect("read", tenant="a")
    assert "Send again" not in read(reader.get(f"/webhooks/{delivery_id}"))
    assert reader.post(f"/webhooks/{delivery_id}/replay", data=seen).status_code == 403
