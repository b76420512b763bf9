"""An archive's run waits for room in the queue and for Redis, and shows how far it is."""

from __future__ import annotations

import io
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.attempts import Model
from support.caption import ROWS, Heard, captioned, working

from videoqa import errors
from videoqa.bulk import ProgressReporter, RowCounts
from videoqa.client import Client
from videoqa.contract import Job, WorkerInfo
from videoqa.jobs import Ledger, connect, queue_name
from videoqa.settings import Settings
from videoqa_worker.embedded.redis_server import RedisServer


def test_a_full_queue_is_waited_for_and_no_row_is_lost(settings: Settings, tmp_path: Path) -> None:
    narrow = settings.model_copy(update={"max_queued": 2})
    heard, model = Heard(), Model()
    with working(narrow, tmp_path, model):
        tally = captioned(narrow, tmp_path, heard)
    assert (tally.done, tally.failed, model.asked) == (ROWS, 0, ROWS)
    assert any(note.startswith("waiting for room in the queue") for note in heard.notes)
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == ROWS


def test_rows_that_are_asked_again_are_no_more_at_a_time_than_others(
    settings: Settings, tmp_path: Path
) -> None:
    model = Model()
    with working(settings, tmp_path, model):
        captioned(settings, tmp_path, Heard())
        heard = Heard()
        tally = captioned(settings, tmp_path, heard, "Why?", in_flight=2)
    assert (tally.done, tally.failed, model.asked) == (ROWS, 0, 2 * ROWS)
    assert heard.most_in_flight == 2


def test_as_many_rows_are_in_flight_as_twice_the_slots_of_the_workers(
    settings: Settings, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    bulk, other = (queue_name(settings.prefix, model, "bulk") for model in (None, "other"))
    with connect(settings) as redis:
        ledger = Ledger(redis, url=settings.redis_url, prefix=settings.prefix)
        for name, queue, ready in (
            ("a", bulk, True),
            ("b", bulk, True),
            ("c", bulk, False),
            ("d", other, True),
        ):
            info = WorkerInfo(
                id=name, model="m", queues=(queue,), slots=2, running=0, ready=ready,
                started_at=now, seen_at=now,
            )  # fmt: skip
            ledger.announce(info)
    heard = Heard()
    sources = [f"s3://b/{n:03}.mp4" for n in range(80)]
    with working(settings, tmp_path, Model()):
        tally = captioned(settings, tmp_path, heard, sources=sources)
    assert (tally.done, heard.most_in_flight) == (80, 8)
    heard = Heard()
    with working(settings, tmp_path, Model()):
        captioned(settings, tmp_path, heard, "Why?", sources=sources[:20], in_flight=3)
    assert heard.most_in_flight == 3


def test_a_row_that_is_refused_is_a_failed_line_and_holds_up_no_other(
    settings: Settings, tmp_path: Path
) -> None:
    long = [{"id": f"q{n}", "text": "x" * 30_000} for n in range(40)]
    entries = [{"custom_id": f"{n}", "url": f"s3://b/{n}.mp4"} for n in range(5)]
    entries[2]["questions"] = long  # type: ignore[assignment]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    with working(settings, tmp_path, Model()):
        tally = captioned(settings, tmp_path, sources=[str(path)])
        again = captioned(settings, tmp_path, sources=[str(path)])
    assert (tally.done, tally.failed) == (4, 1)
    assert (again.skipped, again.failed) == (4, 1)
    failure = json.loads((tmp_path / "out" / "failed" / "2.json").read_text())
    assert failure["job_id"] is None
    assert failure["failure"]["message"].startswith("got a request of")


def test_a_failed_row_is_tried_again_though_redis_went_away_meanwhile(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Model):
        fails = True

        def answer(self, *args: Any) -> Any:
            if self.fails:
                raise errors.UnsupportedInput("the model is no good")
            return super().answer(*args)

    model, retry, times = Failing(), Client.retry, iter(range(99))

    def away_at_first(client: Client, job_id: str) -> Job:
        if next(times) == 0:
            raise errors.RedisUnavailable("away")
        return retry(client, job_id)

    monkeypatch.setattr(Client, "retry", away_at_first)
    with working(settings, tmp_path, model):
        assert captioned(settings, tmp_path, Heard()).failed == ROWS
        model.fails = False
        tally = captioned(settings, tmp_path, Heard(), retry_failed=True)
    assert (tally.done, tally.failed) == (ROWS, 0)


def test_a_redis_that_goes_away_is_waited_for_and_no_row_is_asked_twice(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    settings = Settings(redis_url=server.url)
    heard, model = Heard(), Model()
    outage = threading.Event()

    def meanwhile() -> None:
        if model.asked == 4:
            outage.set()
        model.meanwhile = meanwhile

    model.meanwhile = meanwhile
    tallies: list[RowCounts] = []
    try:
        with working(settings, tmp_path, model):
            thread = threading.Thread(
                target=lambda: tallies.append(captioned(settings, tmp_path, heard))
            )
            thread.start()
            assert outage.wait(30)
            server.stop()
            time.sleep(1.5)
            server = RedisServer(tmp_path / "redis", port=server.port, password=server.password)
            thread.join(60)
    finally:
        server.stop()
    (tally,) = tallies
    assert (tally.done, tally.failed, model.asked) == (ROWS, 0, ROWS)
    assert any(note.startswith("waiting for Redis") for note in heard.notes)


def test_a_redis_that_is_away_from_the_beginning_is_an_error(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    server.stop()
    with pytest.raises(errors.RedisUnavailable):
        captioned(Settings(redis_url=server.url), tmp_path, Heard())


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_without_a_terminal_progress_is_a_line_now_and_then(clock: Clock) -> None:
    out = io.StringIO()
    watcher = ProgressReporter(console=Console(file=out, width=200), clock=clock)
    with watcher:
        for second in range(21):
            clock.now_s = float(second)
            watcher.update(RowCounts(total=100, done=2 * second, skipped=10, failed=1), in_flight=8)
        watcher.note("a note")
        watcher.note("a note")
    lines = out.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[3] == "50/100 done, 1 failed, 8 in flight, 2.0/s, 0:24 left"
    assert lines[4] == "a note"


def test_on_a_terminal_progress_is_a_live_bar(clock: Clock) -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True)
    watcher = ProgressReporter(console=console, clock=clock)
    with watcher:
        watcher.update(RowCounts(total=100), in_flight=8)
        clock.now_s = 10.0
        watcher.update(RowCounts(total=100, done=50, failed=1), in_flight=8)
    shown = out.getvalue()
    assert " 51%" in shown
    assert "50/100 done, 1 failed, 8 in flight, 5.0/s, 0:09 left" in shown


def test_a_quiet_run_shows_nothing(clock: Clock) -> None:
    out = io.StringIO()
    watcher = ProgressReporter(quiet=True, console=Console(file=out), clock=clock)
    with watcher:
        clock.now_s = 99.0
        watcher.update(RowCounts(total=1), in_flight=1)
        watcher.note("a note")
    assert out.getvalue() == ""
