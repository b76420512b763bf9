"""Clients of a Redis, of a gateway and in memory pass one suite: an app sees the same of each."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from support.gateway import make_key, serve_gateway
from support.worker import begin, finish, result_of

from videoqa import AsyncClient, Client, Settings, errors
from videoqa.contract import Failure, Segment
from videoqa.jobs import Claim, Ledger, Progress
from videoqa.testing import InMemoryAsyncClient, InMemoryClient

ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


class Blocking:
    """An AsyncClient whose methods block, on a loop of its own."""

    def __init__(self, make: Callable[..., AsyncClient], settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.client = self._await(self._make(make, settings))

    @staticmethod
    async def _make(make: Callable[..., AsyncClient], settings: Settings) -> AsyncClient:
        return make(settings=settings)

    def _await(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            found = method(*args, **kwargs)
            return self._iterate(found) if inspect.isasyncgen(found) else self._await(found)

        return call

    def _iterate(self, found: AsyncIterator[Any]) -> Iterator[Any]:
        while True:
            try:
                yield self._await(anext(found))
            except StopAsyncIteration:
                return

    def end(self) -> None:
        self._await(self.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"sheet_output": tmp_path.as_uri() + "/{job_id}.jpg"})


@pytest.fixture(
    params=[
        "Client",
        "AsyncClient",
        "HTTP",
        "HTTP for asyncio",
        "InMemoryClient",
        "InMemoryAsyncClient",
    ]
)
def both(
    request: pytest.FixtureRequest, settings: Settings, ledger: Ledger
) -> Iterator[tuple[Any, Ledger]]:
    """A client, and the ledger by which the worker's side is played."""
    if request.param == "Client":
        with Client(settings=settings) as client:
            yield client, ledger
    elif request.param == "AsyncClient":
        blocking = Blocking(AsyncClient, settings)
        yield blocking, ledger
        blocking.end()
    elif request.param.startswith("HTTP"):
        with serve_gateway(settings) as gateway:
            place = Settings(url=gateway.url, api_key=make_key(settings))
            if request.param == "HTTP":
                with Client(settings=place) as client:
                    yield client, ledger
            else:
                blocking = Blocking(AsyncClient, place)
                yield blocking, ledger
                blocking.end()
    elif request.param == "InMemoryAsyncClient":
        blocking = Blocking(InMemoryAsyncClient, settings)
        yield blocking, blocking.client.memory._ledger
        blocking.end()
    else:
        with InMemoryClient(settings=settings) as memory:
            yield memory, memory._ledger


@pytest.fixture
def client(both: tuple[Any, Ledger]) -> Any:
    return both[0]


@pytest.fixture
def worker(both: tuple[Any, Ledger]) -> Worker:
    return Worker(both[1])


class Worker:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._claims = 0

    def begin(self) -> Claim:
        self._claims += 1
        return begin(self.ledger, f"t{self._claims}")

    def say(self, claim: Claim, text: str) -> None:
        self.ledger.progress(
            claim.job_id, claim.token, Progress("generating", question_id="q1", text=text)
        )

    def finish(self, claim: Claim, text: str = "a cat") -> None:
        finish(self.ledger, claim, q1=text)

    def fail(self, claim: Claim, *, retryable: bool = False) -> None:
        failure = Failure(code="model_error", message="boom", retryable=retryable, attempt=1)
        self.ledger.fail(claim.job_id, claim.token, failure, delay_s=0)


def later(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=lambda: (threading.Event().wait(0.2), call()))
    thread.start()
    return thread


def test_all_have_the_same_methods_with_the_same_arguments() -> None:
    def surface(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    plain = surface(Client)
    assert surface(AsyncClient) == plain
    assert plain.items() <= surface(InMemoryClient).items()
    assert surface(InMemoryAsyncClient) == surface(InMemoryClient)


def test_a_job_is_submitted_waited_for_and_read(client: Any, worker: Worker) -> None:
    job = client.submit(**ASKED, custom_id="mine", tags=["t"], metadata={"a": "b"})
    assert (job.state, job.attempt, job.custom_id, job.tags) == ("queued", 0, "mine", ("t",))
    assert client.get(job.id).metadata == {"a": "b"}
    with pytest.raises(errors.JobNotFinished):
        client.result(job.id)
    claim = worker.begin()
    assert client.get(job.id).state == "running"
    thread = later(lambda: worker.finish(claim))
    assert client.wait(job.id, timeout_s=60).state == "succeeded"
    thread.join()
    assert client.result(job.id).answers[0].text == "a cat"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"inputs": []}, "no_media"),
        ({"questions": [" "]}, "empty_question"),
        ({"surprise": 1}, "invalid_request"),
        ({"questions": ["<image>?"]}, "mark_mismatch"),
    ],
)
def test_a_wrong_request_has_its_code(client: Any, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(errors.RequestError) as caught:
        client.submit({**ASKED, **fields})
    assert caught.value.code == code


def test_an_unknown_and_an_expired_job_differ(client: Any, worker: Worker) -> None:
    for call in (client.get, client.cancel, client.retry, client.wait, client.result):
        with pytest.raises(errors.JobNotFound):
            call("job_never")
    job = client.submit(ASKED)
    client.cancel(job.id)
    worker.ledger._redis.delete(worker.ledger.keys.job(job.id))
    with pytest.raises(errors.JobExpired):
        client.get(job.id)


def test_a_record_of_a_newer_release_is_told_and_costs_no_other_job(
    client: Any, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    well, newer = client.submit(ASKED), client.submit(ASKED)
    raw, keys = worker.ledger._redis, worker.ledger.keys
    raw.hset(keys.job(newer.id), "request", '{"inputs": [{"kind": "hologram"}], "questions": []}')
    for call in (client.get, client.cancel, client.wait, client.result):
        # A gateway tells its callers no keys of its Redis; its log has them.
        with pytest.raises(
            errors.RecordUnreadable, match=f"{keys.job(newer.id)}|by this gateway"
        ) as caught:
            call(newer.id)
        assert caught.value.code == "record_unreadable"
    page = client.list()
    assert ([job.id for job in page.jobs], page.unreadable) == ([well.id], (newer.id,))
    assert [job and job.id for job in client.get_many([newer.id, well.id])] == [None, well.id]
    assert client.get_states([well.id, "job_never", "job_ü"]) == ["queued", None, None]
    raw.xadd(keys.events(well.id), {"type": "hologram", "at": "1"})
    worker.finish(worker.begin())
    raw.xadd(keys.events(well.id), {"at": "noon"})
    states = [event.state for event in client.events(well.id, timeout_s=60)]
    assert states == ["queued", "running", "succeeded"]
    for key in (keys.job(newer.id), keys.events(well.id)):
        assert f"key {key}" in caplog.text


def test_one_key_is_one_job_and_another_request_is_refused(client: Any) -> None:
    first = client.submit({**ASKED, "idempotency_key": "k"})
    assert client.submit({**ASKED, "idempotency_key": "k"}).id == first.id
    with pytest.raises(errors.IdempotencyConflict):
        client.submit({**ASKED, "questions": ["Why?"], "idempotency_key": "k"})


def test_many_are_submitted_read_and_listed(client: Any) -> None:
    jobs = client.submit_many([{**ASKED, "tags": ["t"], "custom_id": str(n)} for n in range(5)])
    assert [job.custom_id for job in jobs] == list("01234")
    found = client.get_many([jobs[3].id, "job_never", "job_\ud800"])
    assert (found[0].id, *found[1:]) == (jobs[3].id, None, None)
    assert client.get_states(["job_\ud800", jobs[0].id]) == [None, "queued"]
    page = client.list(tag="t", limit=3)
    rest = client.list(tag="t", limit=3, cursor=page.next_cursor)
    assert [job.custom_id for job in (*page.jobs, *rest.jobs)] == list("43210")
    assert client.list(state="failed").jobs == ()
    with pytest.raises(errors.EmptyQuestion) as caught:
        client.submit_many([ASKED, {**ASKED, "questions": [""]}])
    assert caught.value.param == "requests.1.questions.0.text"


def test_a_job_tells_what_it_was_asked_without_secrets(client: Any, worker: Worker) -> None:
    url = "https://user:secret@h/clip.mp4?X-Amz-Signature=secret"
    sampling = {"method": "fps", "fps": 2.0}
    job = client.submit(inputs=[url, "s3://b/p.png"], questions=["Why?"], sampling=sampling)
    assert client.get(job.id).request is None
    (listed,) = client.list(include_request=True).jobs
    for found in (client.get(job.id, include_request=True), listed):
        assert [item.url for item in found.request.inputs] == ["https://h/clip.mp4", "s3://b/p.png"]
        assert found.request.questions[0].text == "Why?"
        assert found.request.sampling.fps == 2.0
        assert "secret" not in found.model_dump_json()
    assert client.get_many([job.id], include_request=True) == [listed]
    worker.fail(worker.begin())
    (dead,) = client.dead(include_request=True)
    assert dead.request == listed.request
    assert next(iter(client.dead())).request is None


def test_a_wait_that_times_out_leaves_the_job_alone(client: Any) -> None:
    job = client.submit(ASKED)
    with pytest.raises(errors.WaitTimeout):
        client.wait(job.id, timeout_s=0.1)
    assert client.get(job.id).state == "queued"


def test_a_timeout_that_is_no_number_is_refused(client: Any) -> None:
    job = client.submit(ASKED)
    with pytest.raises(errors.InvalidRequest, match="got timeout_s=nan"):
        client.wait(job.id, timeout_s=math.nan)
    with pytest.raises(errors.InvalidRequest, match="got timeout_s=nan"):
        list(client.events(job.id, timeout_s=math.nan))


def test_events_are_replayed_from_where_one_left_off(client: Any, worker: Worker) -> None:
    job = client.submit(ASKED)
    worker.finish(worker.begin())
    events = list(client.events(job.id))
    assert [event.state for event in events] == ["queued", "running", "succeeded"]
    assert [event.id for event in client.events(job.id, after=events[0].id)] == [
        event.id for event in events[1:]
    ]
    with pytest.raises(errors.InvalidRequest):
        list(client.events(job.id, after="yesterday"))


@pytest.mark.parametrize("after", ["0", "0-0"])
def test_the_first_event_is_that_the_job_was_queued(
    client: Any, worker: Worker, after: str
) -> None:
    job = client.submit(ASKED)
    first = next(iter(client.events(job.id, after=after, timeout_s=60)))
    assert (first.type, first.state, first.attempt) == ("state", "queued", 0)
    assert abs((first.at - job.created_at).total_seconds()) < 0.1
    claim = worker.begin()  # perhaps in the same millisecond
    worker.finish(claim)
    states = [event.state for event in client.events(job.id, after=after) if event.type == "state"]
    assert states == ["queued", "running", "succeeded"]
    later = [
        event.state for event in client.events(job.id, after=first.id) if event.type == "state"
    ]
    assert later == ["running", "succeeded"]


def test_text_comes_as_it_is_generated(client: Any, worker: Worker) -> None:
    job = client.submit({**ASKED, "stream": True})
    claim = worker.begin()
    worker.say(claim, "a ")
    pieces = client.stream(job.id, timeout_s=60)
    assert next(pieces).text == "a "
    worker.say(claim, "cat")
    worker.finish(claim)
    assert [piece.text for piece in pieces] == ["cat"]


def test_a_stream_of_segments_gives_each_once_whatever_was_told_again_or_not_at_all(
    client: Any, worker: Worker
) -> None:
    sampling = {"method": "segment", "segment_s": 10}
    job = client.submit({**ASKED, "sampling": sampling, "stream": True})
    claim = worker.begin()

    def tell(text: str, start: float) -> None:
        piece = Progress("generating", question_id="q1", text=text, start=start)
        worker.ledger.progress(job.id, claim.token, piece)

    for start, text in ((0.0, "one"), (10.0, "two")):
        tell(text, start)
    parts = [
        {"number": n, "start": 10.0 * n, "end": 10.0 * n + 10, "frames": [],
         "answers": result_of(claim, q1=text).answers}
        for n, text in enumerate(("one", "two", "three"))
    ]  # fmt: skip
    result = result_of(claim, summary="all").model_copy(
        update={"segments": tuple(map(Segment.model_validate, parts))}
    )
    answer = worker.ledger.finish(job.id, claim.token, result=result, result_url="u")
    assert answer == "ok"
    pieces = list(client.stream(job.id, timeout_s=60))
    assert [(piece.question_id, piece.start, piece.text) for piece in pieces] == [
        ("q1", 0.0, "one"), ("q1", 10.0, "two"), ("q1", 20.0, "three"), ("summary", None, "all"),
    ]  # fmt: skip


def test_a_late_listener_gets_what_is_not_kept_of_an_answer(client: Any, worker: Worker) -> None:
    job = client.submit({**ASKED, "stream": True})
    claim = worker.begin()
    for text in ("a ", "black ", "cat"):
        worker.say(claim, text)
    worker.finish(claim, "a black cat")
    events = worker.ledger.keys.events(job.id)
    worker.ledger._redis.xtrim(events, maxlen=3, approximate=False)
    pieces = [(piece.text, piece.again) for piece in client.stream(job.id, timeout_s=60)]
    assert pieces == [("black ", False), ("cat", False), ("a black cat", True)]


def test_a_tag_that_is_no_text_is_refused(client: Any) -> None:
    with pytest.raises(errors.InvalidRequest, match="expected text") as caught:
        client.list(tag="\ud800")
    assert caught.value.param == "tag"


def test_a_job_is_canceled_queued_and_running(client: Any, worker: Worker) -> None:
    queued = client.submit(ASKED)
    assert client.cancel(queued.id).state == "canceled"
    running = client.submit(ASKED)
    claim = worker.begin()
    assert client.cancel(running.id).state == "canceling"
    worker.fail(claim)
    assert client.wait(running.id, timeout_s=60).state == "canceled"
    with pytest.raises(errors.JobFailed, match="canceled") as caught:
        client.result(running.id)
    assert caught.value.failure == client.get(running.id).failure
    assert caught.value.failure.code == "canceled"  # type: ignore[union-attr]


def test_the_figures_of_the_fleet_and_the_attempts_of_a_job(client: Any, worker: Worker) -> None:
    job = client.submit({**ASKED, "model": "m"})
    client.submit(ASKED)
    claim = worker.begin()
    worker.fail(claim)
    client.retry(claim.job_id)
    worker.finish(worker.begin())
    stats = client.stats("day")
    assert [each.model for each in stats.models] == [None, "m"]
    assert stats.models[0].totals.model_dump(include={"submitted", "failed", "succeeded"}) == {
        "submitted": 2, "failed": 1, "succeeded": 1,
    }  # fmt: skip
    assert (stats.all.totals.submitted, stats.all.waiting) == (3, 1)
    assert [each.model for each in client.stats(model="m").models] == ["m"]
    assert [each.outcome for each in client.timeline(claim.job_id).attempts] == [
        "failed", "succeeded",
    ]  # fmt: skip
    assert client.timeline(job.id).attempts == ()
    with pytest.raises(errors.InvalidRequest):
        client.stats("week")
    with pytest.raises(errors.JobNotFound):
        client.timeline("job_0")


def test_what_jobs_used_is_counted_and_jobs_are_found_by_their_text(
    client: Any, worker: Worker
) -> None:
    cat = client.submit({**ASKED, "questions": ["Is it a cat?"], "tags": ["t"]})
    worker.finish(worker.begin())
    client.cancel(client.submit(ASKED).id)
    (day,) = client.usage()
    assert (day.succeeded, day.canceled, day.answers) == (1, 1, 1)
    assert [(row.name, row.succeeded) for row in client.usage(by="tag")] == [("t", 1)]
    assert client.usage(last_day=date(2020, 1, 1)) == []
    with pytest.raises(errors.InvalidRequest):
        client.usage(by="moon")
    assert [job.id for job in client.list(text="CAT").jobs] == [cat.id]
    with pytest.raises(errors.InvalidRequest):
        client.list(text="")


def test_dead_letters_are_counted_grouped_and_listed(client: Any, worker: Worker) -> None:
    jobs = [client.submit({**ASKED, "custom_id": f"row {n}"}) for n in range(3)]
    for _ in range(2):
        worker.fail(worker.begin())
    (count,) = client.count_dead()
    assert (count.code, count.hour, count.day, count.all) == ("model_error", 2, 2, 2)
    found = client.group_dead("model_error")
    ((group,), looked_at) = (found.groups, found.looked_at)
    assert (group.count, group.failure.message, looked_at) == (2, "boom", 2)
    page = client.list(code="model_error", group=group.group, worker="host:1", limit=1)
    assert [job.id for job in page.jobs] == [jobs[1].id]
    rest = client.list(code="model_error", group=group.group, cursor=page.next_cursor)
    assert [job.id for job in rest.jobs] == [jobs[0].id]
    assert client.count(code="model_error", ended_since=jobs[2].created_at).count == 2
    assert client.count(custom_id="row", state="queued").text == "1"
    (listed,) = client.list(job_id=jobs[2].id).jobs
    assert (listed.summary.question, listed.summary.input) == ("What is it?", "clip.mp4")
    with pytest.raises(errors.InvalidRequest, match="such as model_error") as refused:
        client.list(code="modl_error")
    assert refused.value.param == "code"


def test_all_jobs_of_a_filter_are_canceled_retried_and_purged(client: Any, worker: Worker) -> None:
    jobs = [client.submit({**ASKED, "tags": ["t"]}) for _ in range(3)]
    worker.fail(worker.begin())
    other = client.submit(ASKED)
    preview = client.preview_bulk("cancel", tag="t")
    assert (preview.count.text, [job.id for job in preview.examples]) == (
        "2",
        [jobs[1].id, jobs[2].id],
    )
    late = client.submit({**ASKED, "tags": ["t"]})

    def run(action: str, **asked: Any) -> Any:
        begun = client.start_bulk(action, **asked)
        ended = list(client.follow_bulk(begun.id))[-1]
        assert (ended.status, ended.refusals) == ("completed", ())
        return ended

    assert run("cancel", tag="t", cut_off=preview.cut_off).changed == 2
    states = client.get_states([job.id for job in (*jobs, other, late)])
    assert states == ["failed", "canceled", "canceled", "queued", "queued"]
    assert run("retry", tag="t", code="model_error", key="once").changed == 1
    assert client.start_bulk("retry", tag="t", code="model_error", key="once").changed == 1
    assert client.get_states([jobs[0].id, jobs[1].id]) == ["queued", "canceled"]
    with pytest.raises(errors.InvalidRequest) as refused:
        client.start_bulk("purge", tag="t")
    assert refused.value.param == "expected"
    with pytest.raises(errors.CountChanged, match="2 match now"):
        client.start_bulk("purge", tag="t", expected=1)
    assert run("purge", tag="t", expected=2).changed == 2
    assert client.get_states([job.id for job in jobs]) == ["queued", None, None]
    for wrong in ({}, {"until": preview.cut_off}, {"state": "succeeded"}):
        with pytest.raises(errors.InvalidRequest):
            client.start_bulk("cancel", **wrong)
    stopped = client.stop_bulk(client.list_bulk()[0].id)
    assert (stopped.action, stopped.status) == ("purge", "completed")
    with pytest.raises(errors.BulkActionNotFound):
        client.get_bulk("bulk_never")


def test_failed_jobs_are_listed_retried_and_purged(client: Any, worker: Worker) -> None:
    jobs = [client.submit(ASKED) for _ in range(3)]
    for _ in jobs:
        worker.fail(worker.begin())
    assert [job.id for job in client.dead()] == [job.id for job in jobs]
    assert client.retry(jobs[0].id).state == "queued"
    with pytest.raises(errors.NotRetryable):
        client.retry(jobs[0].id)
    client.purge(jobs[1].id)
    with pytest.raises(errors.NotRetryable):
        client.purge(jobs[0].id)
    assert [job.id for job in client.dead(code="model_error")] == [jobs[2].id]
    assert list(client.dead(code="worker_lost")) == []
    for unknown in (client.dead, client.replay):
        with pytest.raises(errors.InvalidRequest, match="such as model_error"):
            list(unknown(code="modl_error"))
    assert [job.id for job in client.replay(code="model_error")] == [jobs[2].id]


def test_a_retryable_failure_is_tried_again(client: Any, worker: Worker) -> None:
    job = client.submit(ASKED)
    worker.fail(worker.begin(), retryable=True)
    found = client.get(job.id)
    assert (found.state, found.failure.code) == ("queued", "model_error")
    worker.ledger.reap(grace_s=60)
    worker.finish(worker.begin())
    assert client.get(job.id).attempt == 2


def test_what_jobs_used_is_counted(client: Any, worker: Worker) -> None:
    job = client.submit(**ASKED, tags=["t"])
    worker.finish(worker.begin())
    client.wait(job.id, timeout_s=60)
    assert [(row.name, row.succeeded, row.answers) for row in client.usage(by="tag")] == [
        ("t", 1, 1)
    ]
    with pytest.raises(errors.InvalidRequest):
        client.usage(first_day=date(2026, 2, 2), last_day=date(2026, 2, 1))


def test_queues_are_paused_and_resumed(client: Any) -> None:
    def find_paused() -> list[str]:
        return [queue.priority for queue in client.queues() if queue.paused]

    job = client.submit(ASKED)
    client.pause()
    assert client.get(job.id).waiting_for == "its queue is paused"
    assert find_paused() == ["bulk", "interactive"]  # also the one in which nothing waits
    client.resume(priority="interactive")
    assert find_paused() == ["bulk"]
    client.resume()
    assert find_paused() == []


# -- what only one of them has


def test_an_app_sees_a_segment_with_its_answers_and_the_summary() -> None:
    sampling = {"method": "segment", "segment_s": 10}
    with InMemoryClient(answer="a cat") as client:
        for summary in (True, False):
            job = client.submit({**ASKED, "sampling": sampling, "summary": summary})
            result = client.result(job.id)
            assert [(part.end, part.text) for part in result.segments] == [(10.0, "a cat")]
            assert [answer.question_id for answer in result.answers] == ["summary"] * summary


def test_an_in_memory_client_answers_as_the_test_says() -> None:
    with InMemoryClient(answer=lambda request, question: question.text.upper()) as client:
        job = client.submit(inputs=["s3://b/k.mp4"], questions=["one?", "two?"])
        assert [answer.text for answer in client.result(job.id).answers] == ["ONE?", "TWO?"]
        assert [client.result(each.id).answers[0].text for each in client.submit_many([ASKED] * 2)] == [
            "WHAT IS IT?", "WHAT IS IT?",
        ]  # fmt: skip


def test_an_in_memory_client_fails_as_the_test_says() -> None:
    def answer(request: object, question: object) -> str:
        raise errors.SourceNotFound("no such video")

    with InMemoryClient(answer=answer) as client:
        job = client.get(client.submit(ASKED).id)
        assert (job.state, job.failure and job.failure.code) == ("failed", "source_not_found")


def test_the_test_plays_the_worker_of_an_in_memory_client() -> None:
    with InMemoryClient() as client:
        first, second = client.submit(ASKED), client.submit({**ASKED, "priority": "bulk"})
        assert client.begin(second.id).state == "running"
        assert client.get(first.id).state == "queued"
        client.say(first.id, "a c")
        assert client.finish(first.id, "a cat").state == "succeeded"
        assert client.fail(second.id, "worker_lost", retryable=True).state == "queued"
        assert client.fail(second.id).state == "failed"
        client.expire(second.id)
        with pytest.raises(errors.JobExpired):
            client.get(second.id)
        with pytest.raises(errors.InvalidRequest, match="got 2 answers, expected 1"):
            client.finish(client.submit(ASKED).id, "a", "b")


def test_the_test_plays_the_worker_of_an_in_memory_async_client() -> None:
    async def ask() -> list[str]:
        async with InMemoryAsyncClient() as client:
            one = await client.submit(ASKED)
            waiting = asyncio.create_task(client.wait(one.id, timeout_s=60))
            await client.begin(one.id)
            await client.say(one.id, "a ")
            await client.finish(one.id, "a cat")
            other = await client.submit(ASKED)
            await client.fail(other.id, "source_not_found")
            with pytest.raises(errors.JobFailed) as caught:
                async for _ in client.stream(other.id):
                    pass
            state = (await waiting).state
            await client.expire(one.id)
            with pytest.raises(errors.JobExpired):
                await client.get(one.id)
            return [state, caught.value.failure.code]  # type: ignore[union-attr]

    assert asyncio.run(ask()) == ["succeeded", "source_not_found"]


def test_one_in_memory_async_client_serves_any_number_of_event_loops() -> None:
    client = InMemoryAsyncClient(answer="a cat")

    async def ask() -> str:
        job = await client.submit(ASKED)
        pieces = [piece.text async for piece in client.stream(job.id, timeout_s=60)]
        return "".join(pieces)

    assert [asyncio.run(ask()) for _ in range(2)] == ["a cat"] * 2
    asyncio.run(client.close())


def test_many_wait_at_once_on_one_loop(settings: Settings, ledger: Ledger) -> None:
    async def run() -> list[str]:
        async with AsyncClient(settings=settings) as client:
            jobs = await client.submit_many([ASKED] * 200)
            waits = [asyncio.create_task(client.wait(job.id, timeout_s=60)) for job in jobs]
            await asyncio.sleep(0.5)
            worker = Worker(ledger)

            def work() -> None:
                for _ in jobs:
                    worker.finish(worker.begin())

            await asyncio.to_thread(work)
            return [job.state for job in await asyncio.gather(*waits)]

    assert asyncio.run(run()) == ["succeeded"] * 200
