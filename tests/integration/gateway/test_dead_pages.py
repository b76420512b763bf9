"""Pages of dead letters: exact numbers, groups, replay of one, a group and all, and purge with the count typed."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import httpx
import pytest
import redis
from support.processes import wait_until
from support.worker import begin

from videoqa import Client
from videoqa.contract import Failure
from videoqa.gateway.access.audit import AuditLog
from videoqa.jobs import Ledger
from videoqa.settings import Settings

pytestmark = pytest.mark.usefixtures("fresh_snapshots")

Connect = Callable[..., httpx.Client]

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def read(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text[:500]
    assert "<script>alert" not in answer.text
    return unescape(answer.text)


def kill(client: Client, ledger: Ledger, code: str, message: str, tenant: str) -> str:
    """Submits a job and has it fail for good."""
    job_id = client.submit(
        inputs=[f"s3://b/{HOSTILE.replace('/', '')}.mp4"], questions=[HOSTILE], tenant=tenant
    ).id
    claim = begin(ledger, job_id)
    failure = Failure(code=code, message=message, stage="fetching", retryable=False, attempt=1)
    ledger.fail(claim.job_id, claim.token, failure, delay_s=0)
    return job_id


def find_fields(page: str, action: str) -> dict[str, str]:
    """Returns the hidden fields of the form with this action."""
    form = re.search(
        rf'<form method="post" action="{re.escape(action)}".*?</form>', page, re.DOTALL
    )
    assert form, action
    return {
        name: unescape(value)
        for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[0])
    }


def test_dead_letters_are_counted_listed_and_replayed(
    connect: Connect, settings: Settings, ledger: Ledger, redis_client: redis.Redis
) -> None:
    log = AuditLog(redis_client, url=settings.redis_url, prefix=settings.prefix)
    own, other, admin = (
        connect("submit", "read", tenant="a"), connect("read", tenant="b"), connect("admin")
    )  # fmt: skip
    assert "No dead letter" in read(own.get("/dead"))
    with Client(settings=settings) as client:
        lost = [
            kill(client, ledger, "source_not_found", f"s3://b/{n} is not there", "a")
            for n in range(3)
        ]
        odd = kill(client, ledger, "source_not_found", HOSTILE, "a")
        kill(client, ledger, "no_media", "nothing in it", "b")
        shown = read(own.get("/dead"))
        assert '/dead/source_not_found?within=1h" aria-label="4 source_not_found, 1 h"' in shown
        assert "no_media" not in shown
        for query in ({}, {"within": "1h"}, {"within": "7d"}):
            page = read(own.get("/dead/source_not_found", params=query))
            assert all(f'id="{job_id}"' in page for job_id in (*lost, odd))
        assert HOSTILE in page
        assert lost[0] not in read(other.get("/dead/source_not_found"))
        of_group = {"group": re.findall(r'id="group-(\w+)"', page)[0]}
        page = read(own.get("/dead/source_not_found", params=of_group))
        assert f'id="{odd}"' not in page
        assert f'id="{lost[0]}"' in page
        assert connect("submit", tenant="a").get("/dead").status_code == 403
        path = f"/dead/source_not_found/{lost[0]}/retry"
        assert other.post(path).status_code == 403
        for _ in range(2):
            assert own.post(path).status_code == 303
            assert client.get(lost[0]).state == "queued"
        page = read(own.get("/dead/source_not_found", params=of_group | {"within": "1h"}))
        preview = own.get(re.findall(r'href="(/jobs/bulk\?action=retry[^"]*)"', page)[0])
        assert "Retry 2 jobs?" in read(preview)
        fields = find_fields(preview.text, "/jobs/bulk")
        before = len(log.read())
        answers = [own.post("/jobs/bulk", data=fields) for _ in range(2)]
        assert {answer.headers["location"] for answer in answers} == {
            answers[0].headers["location"]
        }
        wait_until(lambda: {client.get(job_id).state for job_id in lost[1:]} == {"queued"})
        assert client.get(odd).state == "failed"
        assert log.read()[0].what == "bulk retry"
        assert len(log.read()) > before
        wait_until(lambda: "completed" in read(own.get(answers[0].headers["location"])))
        assert "Retry all" in read(admin.get("/dead"))


def test_a_purge_needs_the_number_typed(
    connect: Connect, settings: Settings, ledger: Ledger
) -> None:
    own, other = connect("submit", "read", tenant="a"), connect("submit", "read", tenant="b")
    with Client(settings=settings) as client:
        dead = [kill(client, ledger, "no_media", f"{n}", "a") for n in range(2)]
        foreign = kill(client, ledger, "no_media", "x", "b")
        query = {"action": "purge", "code": "no_media", "ended_within": "1h"}
        preview = own.get("/jobs/bulk", params=query)
        assert "Type the number of jobs" in read(preview)
        fields = find_fields(preview.text, "/jobs/bulk")
        assert "ended_within" not in fields
        assert "ended_since" in fields, "so the form means the same jobs whenever it is sent"
        for typed in ({}, {"typed": ""}, {"typed": "1"}, {"typed": "three"}):
            answer = own.post("/jobs/bulk", data=fields | typed)
            assert "Nothing was changed" in read(answer)
        for bad in ({"cut_off": "yesterday"}, {"action": "drop"}, {"ended_since": "1"}):
            assert own.post("/jobs/bulk", data=fields | {"typed": "2"} | bad).status_code == 400
        assert {client.get(job_id).state for job_id in dead} == {"failed"}
        kill(client, ledger, "no_media", "later", "a")
        location = own.post("/jobs/bulk", data=fields | {"typed": "2"}).headers["location"]
        wait_until(lambda: client.get_many(dead) == [None, None])
        assert client.count(state="failed").count == 2, "one that failed later, and one of b"
        assert client.get(foreign).state == "failed"
        assert other.post(f"{location}/stop").status_code == 404
        assert own.post(f"{location}/stop").status_code == 303
        nothing = own.get("/jobs/bulk", params=query | {"group": "00000000"})
        assert "No job would be changed" in read(nothing)
        assert connect("read", tenant="a").get("/jobs/bulk", params=query).status_code == 403
