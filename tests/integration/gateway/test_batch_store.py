"""BatchStore over a real Redis: leases, and calls that come late."""

from __future__ import annotations

import pytest
import redis

from videoqa.gateway.batches import runner
from videoqa.gateway.batches.lines import InputCheck
from videoqa.gateway.batches.record import BatchRecord
from videoqa.gateway.batches.store import BatchStore
from videoqa.settings import Settings


@pytest.fixture
def store(redis_client: redis.Redis, settings: Settings) -> BatchStore:
    return BatchStore(redis_client, url="redis://", prefix=settings.prefix)


def make_record(digit: str = "0") -> BatchRecord:
    return BatchRecord(
        id="batch_" + digit * 24, tenant="a", key_id="k", input_file_id="file-x", input_name="content",
        input_bytes=1, parts_id="file-y", created_at=0, expires_at=1,
    )  # fmt: skip


def create(store: BatchStore, record: BatchRecord) -> str | None:
    return store.create(record, call=record.id, body="b", joins=True)


def test_batches_take_turns(store: BatchStore) -> None:
    """One that is given back is due after those that wait."""
    first, second = make_record("9"), make_record("1")
    create(store, first)
    assert store.take("me") == first.id
    create(store, second)
    assert store.count_due() == 1
    store.hold(first.id, "me", for_s=0)
    assert store.take("me") == second.id
    assert store.take("me") == first.id
    assert store.count_due() == 0


def test_a_cancel_leaves_the_batch_to_its_holder(store: BatchStore) -> None:
    """Another process that took it could miss the jobs that the holder is about to submit."""
    record = make_record()
    create(store, record)
    assert store.take("me") == record.id
    assert store.cancel(record.id) == "ok"
    assert store.take("another") is None
    assert store.hold(record.id, "me", for_s=0) == "cancelling"
    assert store.take("another") == record.id


def test_a_repeated_call_that_was_slow_does_not_begin_a_batch_anew(
    store: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds no batch, and goes on once the first call has made it and the batch is in progress."""
    record = make_record()
    look = store._redis.exists

    def look_early(*names: str) -> object:
        found = look(*names)
        assert store._redis.delete(f"{store._prefix}:batch:call:c") == 1
        assert store.create(record, call="c", body="b", joins=True) == record.id
        assert store.take("me") == record.id
        assert store.move(record.id, ("validating",), "in_progress", holder="me") == "ok"
        return found

    store._redis.set(f"{store._prefix}:batch:call:c", f"{record.id} b")
    with monkeypatch.context() as patch:
        patch.setattr(store._redis, "exists", look_early)
        late = record.model_copy(update={"id": "batch_" + "1" * 24})
        assert store.create(late, call="c", body="b", joins=True) == record.id
    found = store.find(record.id)
    assert found is not None
    assert found.status == "in_progress"
    assert store.take("another") is None


def test_lines_are_checked_a_few_megabytes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHECKED_BYTES", 100)
    lines = enumerate([b"x" * 60] * 5, 1)
    check = InputCheck(1000)
    rounds = []
    while found := runner._check_some(check, lines):
        rounds.append(len(found))
    assert rounds == [2, 2, 1]
