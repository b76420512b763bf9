"""Runs of archives announce themselves: at Redis and at a gateway, within bounds, and without holding up the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.attempts import Model
from support.caption import ROWS, captioned, working
from support.gateway import make_key, serve_gateway

from videoqa import Client, Settings, errors
from videoqa.bulk import RunAnnouncer, RunProgress
from videoqa.contract import FailedRow, RunFailures, RunReport
from videoqa.jobs import RunLog
from videoqa.jobs import runs as run_module

HOSTILE = "<script>alert(1)</script>"


def report(number: int = 0, **fields: Any) -> RunReport:
    return RunReport(id=f"run_{number:024}", kind="caption", **{"name": "videos/", **fields})


@pytest.fixture(params=["Redis", "gateway"])
def make_client(
    request: pytest.FixtureRequest, settings: Settings
) -> Iterator[Callable[[str | None], Client]]:
    """Makes clients of a tenant, or of all."""
    made: list[Client] = []
    if request.param == "Redis":
        operator = Client(settings=settings)
        made.append(operator)
        yield lambda tenant: operator if tenant is None else operator.for_tenant(tenant)
    else:
        with serve_gateway(settings) as gateway:

            def connect(tenant: str | None) -> Client:
                key = make_key(settings, "submit", "read", tenant=tenant)
                made.append(Client(gateway.url, api_key=key))
                return made[-1]

            yield connect
    for client in made:
        client.close()


def test_a_run_is_listed_found_and_searched_by_its_own_tenant(
    make_client: Callable[[str | None], Client],
) -> None:
    a, b, operator = make_client("a"), make_client("b"), make_client(None)
    row = FailedRow(row=f"https://me:secret@h/{HOSTILE}.mp4?token=1", message="at s3://b/x?sig=1")
    asked = report(
        1, name="https://me:secret@h/a?token=1 videos/", output="s3://me:secret@b/out", total=10, done=4,
        failed=1, skipped=1, rate=2.0, failures=(RunFailures(code="source_not_found", count=1, examples=(row,)),),
    )  # fmt: skip
    a.announce_run(asked, begins=True)
    b.announce_run(report(2, name="others/"), begins=True)
    found = a.get_run(asked.id)
    assert (found.tenant, found.state, found.starts, found.finished, found.left_s) == (
        "a", "running", 1, 6, 2.0
    )  # fmt: skip
    assert found.first_at == found.started_at
    assert found.first_at <= found.seen_at
    assert (found.name, found.output) == ("https://h/a videos/", "s3://b/out")
    (failure,) = found.failures
    assert failure.examples == (FailedRow(row=f"https://h/{HOSTILE}.mp4", message="at s3://b/x"),)
    assert [run.id for run in operator.runs().runs] == [report(2).id, asked.id]
    (listed,) = a.runs(state="running", text="VIDEOS/").runs
    assert listed.failures[0].examples == ()
    assert a.runs(text="others").runs == a.runs(state="finished").runs == ()
    for call in (b.get_run, lambda run_id: b.announce_run(report(1))):
        with pytest.raises(errors.RunNotFound):
            call(asked.id)
    first = operator.runs(limit=1)
    assert [run.id for run in first.runs] == [report(2).id]
    second = operator.runs(limit=1, cursor=first.next_cursor)
    assert ([run.id for run in second.runs], second.next_cursor) == ([asked.id], None)
    a.announce_run(report(1, state="finished", total=10, done=10))
    assert a.get_run(asked.id).ended_at is not None
    a.announce_run(asked, begins=True)
    again = a.get_run(asked.id)
    assert (again.starts, again.ended_at, again.state) == (2, None, "running")
    assert again.first_at < again.started_at


@pytest.mark.parametrize(
    "fields",
    [{"limit": 0}, {"limit": 201}, {"state": "lost"}, {"text": ""}, {"cursor": "x"}],
    ids=str,
)
def test_a_wrong_question_about_runs_is_refused(settings: Settings, fields: Any) -> None:
    with Client(settings=settings) as client, pytest.raises(errors.InvalidRequest):
        client.runs(**fields)


def test_runs_are_bounded_and_a_silent_one_is_interrupted(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "MOST_RUNS", 3)
    monkeypatch.setattr(run_module, "MOST_OF_TENANT", 2)
    log = RunLog(redis_client, url=settings.redis_url, prefix=settings.prefix)
    for number in range(5):
        log.announce(report(number, tenant="a" if number < 4 else None), begins=True)
    with Client(settings=settings) as client:
        assert [run.id for run in client.runs().runs] == [report(n).id for n in (4, 3, 2)]
        assert [run.id for run in client.for_tenant("a").runs().runs] == [
            report(n).id for n in (3, 2)
        ]
        assert len(list(redis_client.scan_iter(f"{settings.prefix}:run:*"))) == 3
        assert 0 < redis_client.ttl(f"{settings.prefix}:run:{report(4).id}") <= run_module.KEPT_S
        redis_client.hset(f"{settings.prefix}:run:{report(4).id}", "seen_at", time.time() - 61)
        assert client.runs(state="interrupted").runs[0].id == report(4).id


class Words:
    """A fleet that takes the words of runs, or refuses them."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.answers = threading.Event()
        self.answers.set()
        self.heard: list[tuple[RunReport, bool]] = []

    def announce_run(self, report: RunReport, *, begins: bool = False) -> None:
        self.answers.wait()
        self.heard.append((report, begins))
        if self.error is not None:
            raise self.error


def test_the_words_of_a_run_are_bounded_and_any_name_of_a_file_can_be_sent() -> None:
    words = Words()
    announcer = RunAnnouncer(words, report(), every_s=60)
    for number in range(30):
        for _ in range(7):
            announcer.note_failure(f"code_{number}", "a\udcff.mp4" * 100, "x" * 1000, None)
    announcer.update(RunProgress(total=300, done=3, failed=210))
    announcer.close("failed", "no\udcff " * 200)
    last, begins = words.heard[-1]
    assert (last.state, last.failed, begins) == ("failed", 210, False)
    assert len(last.failures) == 20
    assert all(each.count == 7 and len(each.examples) == 5 for each in last.failures)
    assert len(last.model_dump_json()) < 64_000
    assert words.heard[0][1] is True


@pytest.mark.parametrize(
    "error",
    [
        errors.RedisUnavailable("away"),
        errors.GatewayError("404: an old gateway"),
        RuntimeError("?"),
    ],
    ids=str,
)
def test_a_run_that_cannot_announce_itself_goes_on(error: Exception) -> None:
    words = Words(error)
    announcer = RunAnnouncer(words, report(), every_s=0.01)
    announcer.note_failure("x", "row", "message", None)
    announcer.close("finished")
    assert 1 <= len(words.heard) <= 2


def test_a_run_does_not_wait_for_a_fleet_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videoqa.bulk.run.announcer.LAST_WORD_S", 0.1)
    words = Words()
    words.answers.clear()
    RunAnnouncer(words, report(), every_s=0.01).close("finished")
    assert words.heard == [], "it hangs still"
    words.answers.set()


def test_captions_of_an_archive_are_one_run_however_often_they_are_started(
    settings: Settings, tmp_path: Path
) -> None:
    with Client(settings=settings) as client, working(settings, tmp_path, Model()):
        captioned(settings, tmp_path)
        (run,) = client.runs().runs
        assert (run.kind, run.state, run.total, run.done, run.starts) == (
            "caption", "finished", ROWS, ROWS, 1
        )  # fmt: skip
        assert run.output == (tmp_path / "out").as_uri()
        assert run.who is not None
        assert run.who.startswith("shell")
        captioned(settings, tmp_path)
        (again,) = client.runs().runs
        assert (again.id, again.starts, again.done, again.skipped) == (run.id, 2, 0, ROWS)
