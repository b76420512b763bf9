"""A run over an archive: each row once, whatever stops it. The fleet is played in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from videoqa import Client, JobRequest, Question, Settings, errors
from videoqa.bulk import Row, Run, Shelf, Summary
from videoqa.job import Job
from videoqa.objects import ObjectStore
from videoqa.testing import InMemoryClient
from videoqa_worker.embedded.s3_server import S3Server

ASK = {"questions": ["What is it?"]}


class Fleet:
    """Answers with the video's name; counts, and fails for those named bad."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bad = {"bad.mp4"}

    def __call__(self, request: JobRequest, question: Question) -> str:
        name = request.inputs[0].url.rpartition("/")[2]
        self.asked.append(name)
        if name in self.bad:
            raise errors.VideoTooLong(f"{name} is broken")
        return f"this is {name}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videoqa.bulk.run.LOOK_EVERY_S", 0.001)
    monkeypatch.setattr("videoqa.bulk.run.AWAY_S", 0.01)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def client(fleet: Fleet) -> Iterator[InMemoryClient]:
    with InMemoryClient(answer=fleet) as client:
        yield client


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(str(tmp_path / "out"), ObjectStore())


def rows(*names: str) -> list[Row]:
    return [
        Row(n, f"videos/{name}", {"inputs": [f"s3://b/{name}"]}) for n, name in enumerate(names, 1)
    ]


def run(
    client: Client,
    shelf: Shelf,
    found: list[Row],
    on_change: Callable[[Summary], None] = lambda summary: None,
    **options: Any,
) -> Summary:
    return Run(client, shelf, ASK, **options).run(found, len(found), on_change)


def test_each_row_has_one_result_or_one_failure(
    client: InMemoryClient, shelf: Shelf, tmp_path: Path
) -> None:
    found = rows("a.mp4", "bad.mp4", *(f"{n}.mp4" for n in range(30)))
    summary = run(client, shelf, found, in_flight=4)
    assert (summary.done, summary.failed, summary.skipped) == (31, 1, 0)
    out = tmp_path / "out"
    assert len(list((out / "results").iterdir())) == 31
    assert (out / "results" / "videos%2Fa.mp4.json").is_file()
    shelf.write_lines(line for row in found if (line := shelf.line(row.custom_id)))
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == [row.custom_id for row in found]
    assert lines[0]["answers"] == {"q1": "this is a.mp4"}
    assert (lines[1]["state"], lines[1]["error"]["code"]) == ("failed", "video_too_long")


def test_no_more_are_in_flight_than_allowed(shelf: Shelf) -> None:
    most = 0
    with InMemoryClient() as client:

        def on_change(summary: Summary) -> None:
            nonlocal most
            going = [job for job in client.list(limit=1000).jobs if not job.final]
            most = max(most, len(going))
            for job in going[:2]:
                client.finish(job.id, "done")

        assert run(client, shelf, rows(*map(str, range(20))), on_change, in_flight=5).done == 20
    assert most == 5


def test_a_run_goes_on_from_the_results_alone(fleet: Fleet, shelf: Shelf) -> None:
    found = rows("a.mp4", "bad.mp4", "b.mp4")
    with InMemoryClient(answer=fleet) as client:
        run(client, shelf, found[:2])
    with InMemoryClient(answer=fleet) as other:  # another Redis
        summary = run(other, shelf, found)
    assert (summary.done, summary.failed, summary.skipped) == (2, 1, 2)
    assert sorted(fleet.asked) == ["a.mp4", "b.mp4", "bad.mp4"]


class Killed(BaseException):
    """As `kill -9` of the producer."""


def test_a_producer_that_dies_takes_up_the_jobs_that_it_had_submitted(shelf: Shelf) -> None:
    with InMemoryClient() as client:

        def die(summary: Summary) -> None:
            raise Killed

        with pytest.raises(Killed):
            run(client, shelf, rows("a.mp4", "b.mp4"), die)
        jobs = client.list().jobs
        for job in jobs:
            client.finish(job.id, "done meanwhile")
        assert run(client, shelf, rows("a.mp4", "b.mp4")).done == 2
        assert client.list().jobs != ()
        assert {job.id for job in client.list().jobs} == {job.id for job in jobs}


def test_failed_rows_are_tried_again_only_on_request(
    client: InMemoryClient, fleet: Fleet, shelf: Shelf, tmp_path: Path
) -> None:
    found = rows("a.mp4", "bad.mp4")
    run(client, shelf, found)
    assert run(client, shelf, found).failed == 1
    assert fleet.asked == ["a.mp4", "bad.mp4"]
    fleet.bad = set()
    summary = run(client, shelf, found, retry_failed=True)
    assert (summary.done, summary.failed) == (2, 0)
    assert fleet.asked == ["a.mp4", "bad.mp4", "bad.mp4"]
    assert list((tmp_path / "out" / "failed").iterdir()) == []


def test_jobs_that_vanish_with_their_redis_are_submitted_again(shelf: Shelf) -> None:
    with InMemoryClient() as client:
        flushed = False

        def on_change(summary: Summary) -> None:
            nonlocal flushed
            if not flushed:
                client._redis.flushall()
                flushed = True
            for job in client.list().jobs:
                if not job.final:
                    client.finish(job.id, "done")

        assert run(client, shelf, rows("a.mp4", "b.mp4"), on_change).done == 2


def test_a_full_queue_and_a_redis_that_is_away_are_waited_for(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(max_queued=3)
    waited: set[str] = set()
    with InMemoryClient(settings=settings) as client:
        away = iter([True, False, True])
        get_many = client.get_many

        def sometimes(ids: Any) -> list[Job | None]:
            if next(away, False):
                raise errors.RedisUnavailable("Redis is away")
            return get_many(ids)

        monkeypatch.setattr(client, "get_many", sometimes)

        def on_change(summary: Summary) -> None:
            if summary.waiting_for:
                waited.add(summary.waiting_for.split(";")[0])
            for job in client.list().jobs:
                if not job.final:
                    client.finish(job.id, "done")

        assert run(client, shelf, rows(*map(str, range(8))), on_change, in_flight=8).done == 8
        assert len(client.list().jobs) == 8
    assert waited == {
        "Redis is away",
        "3 bulk jobs wait for the default model, expected fewer than 3",
    }


def test_a_place_with_answers_to_another_question_is_refused(shelf: Shelf) -> None:
    shelf.claim(ASK)
    shelf.claim(ASK)
    with pytest.raises(errors.InvalidRequest, match="take another --output"):
        shelf.claim({"questions": ["Why?"]})


def test_results_can_lie_in_s3(client: InMemoryClient, s3_server: S3Server) -> None:
    s3 = s3_server.client()
    s3.create_bucket(Bucket="captions")
    objects = ObjectStore()
    objects._client = s3
    shelf = Shelf("s3://captions/my run", objects)
    found = rows("a b.mp4", "bad.mp4", "é.mp4")
    assert run(client, shelf, found).done == 2
    again = run(client, shelf, found)
    assert (again.done, again.failed, again.skipped) == (2, 1, 3)
    url = shelf.write_lines(line for row in found if (line := shelf.line(row.custom_id)))
    assert len(objects.read(url).splitlines()) == 3
    assert len(list(objects.list("s3://captions/my run/"))) == 4
