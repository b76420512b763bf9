"""EventCursor without Redis: what both clients leave to it, on a clock of the test."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from videoqa import errors
from videoqa.contract import Event, Job, JobState
from videoqa.jobs import EventCursor

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def make_job(state: JobState, attempt: int = 0) -> Job:
    return Job(id="job_1", state=state, attempt=attempt, created_at=NOW)


def make_event(number: int, state: JobState, attempt: int = 0) -> Event:
    return Event(id=f"{number}-0", type="state", state=state, attempt=attempt, at=NOW)


def receive(cursor: EventCursor, *events: Event) -> list[str]:
    """Plays one read that returns these events."""
    with cursor.reading():
        return [event.id for event in cursor.receive(events)]


def lose_redis(cursor: EventCursor) -> None:
    """Plays one read that Redis does not answer."""
    with cursor.reading():
        raise errors.RedisUnavailable("away")


def test_reads_block_unless_the_job_is_final() -> None:
    cursor = EventCursor("job_1")
    (first,) = cursor.begin(make_job("running"))
    assert (first.state, first.at, cursor.after) == ("queued", NOW, first.id)
    assert receive(cursor, make_event(1, "running")) == ["1-0"]
    assert 15 <= cursor.block_s <= 30, "not all waiters look at their records at once"
    assert (cursor.after, cursor.needs_state, cursor.may_be_over) == ("1-0", False, False)
    assert receive(cursor) == []
    assert cursor.needs_state
    assert receive(cursor, make_event(2, "failed")) == ["2-0"]
    assert (cursor.needs_state, cursor.may_be_over) == (False, True)
    final = EventCursor("job_1")
    assert final.begin(make_job("failed")) == [], "its events are all read at once"
    receive(final, make_event(1, "failed"))
    assert final.block_s == 0


def test_without_time_the_events_so_far_are_read() -> None:
    cursor = EventCursor("job_1", timeout_s=0)
    cursor.begin(make_job("running"))
    assert receive(cursor, make_event(1, "running")) == ["1-0"]
    assert cursor.block_s == 0
    with pytest.raises(errors.WaitTimeout):
        receive(cursor)


def test_a_job_is_over_when_its_record_says_so_after_its_last_event() -> None:
    cursor = EventCursor("job_1")
    cursor.begin(make_job("running"))
    receive(cursor, make_event(1, "failed"))
    cursor.end(make_job("queued"))  # it was retried
    assert cursor.is_open
    receive(cursor, make_event(2, "succeeded"))
    assert cursor.is_over("succeeded")
    cursor.end(make_job("succeeded"))
    assert not cursor.is_open
    assert cursor.job.state == "succeeded"


@pytest.mark.parametrize(("replays", "is_open"), [(True, True), (False, False)])
def test_events_of_a_final_job_are_read_only_if_they_are_wanted(
    replays: bool, is_open: bool
) -> None:
    cursor = EventCursor("job_1", replays=replays)
    cursor.begin(make_job("succeeded"))
    assert cursor.is_open == is_open


def test_no_read_blocks_beyond_the_callers_timeout() -> None:
    clock = Clock()
    cursor = EventCursor("job_1", timeout_s=3, clock=clock)
    cursor.begin(make_job("running"))
    receive(cursor)
    clock.now_s += 2.5
    receive(cursor)
    assert cursor.block_s == 0.5
    clock.now_s += 0.5
    with pytest.raises(errors.WaitTimeout, match="within 3 s"):
        receive(cursor)


def test_an_outage_is_bridged_for_half_a_minute() -> None:
    clock = Clock()
    cursor = EventCursor("job_1", clock=clock)
    cursor.begin(make_job("running"))
    lose_redis(cursor)
    assert cursor.pause_s == 0.5
    clock.now_s += 29
    receive(cursor)  # it is back, and the next outage has its own half minute
    assert cursor.pause_s == 0.0
    clock.now_s += 29
    lose_redis(cursor)
    clock.now_s += 30
    lose_redis(cursor)
    clock.now_s += 1
    with pytest.raises(errors.RedisUnavailable):
        lose_redis(cursor)


@pytest.mark.parametrize("after", ["", "yesterday", "1-", "-1", "1-2-3"])
def test_a_position_that_is_no_events_id_is_refused(after: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="expected the id of an event") as caught:
        EventCursor("job_1", after=after)
    assert caught.value.param == "after"


def test_a_job_that_was_retried_behind_its_final_event_is_read_on() -> None:
    cursor = EventCursor("job_1")
    cursor.begin(make_job("running"))
    receive(cursor, make_event(1, "failed"))
    cursor.end(make_job("succeeded", attempt=2))  # its events are there by now
    assert cursor.is_open
    receive(cursor, make_event(2, "succeeded", attempt=2))
    cursor.end(make_job("succeeded", attempt=2))
    assert not cursor.is_open


def test_no_read_blocks_while_only_the_record_of_a_final_event_is_missing() -> None:
    cursor = EventCursor("job_1")
    cursor.begin(make_job("running"))
    with cursor.reading():
        assert len(list(cursor.receive([make_event(1, "succeeded")]))) == 1
        raise errors.RedisUnavailable("away")
    receive(cursor)
    assert (cursor.block_s, cursor.needs_state) == (0, True)


def test_the_first_read_of_a_final_job_is_repeated_as_it_was_after_an_outage() -> None:
    cursor = EventCursor("job_1")
    cursor.begin(make_job("succeeded"))
    lose_redis(cursor)
    receive(cursor)
    assert (cursor.block_s, cursor.after) == (0, "0")
