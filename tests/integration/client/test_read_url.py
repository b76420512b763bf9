"""`VIDEOQA_REDIS_READ_URL`: reads go to a real replica, and what it lacks or gets wrong is asked of the primary."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.processes import wait_until
from support.sentinels import NAME, Replicated
from support.worker import begin, finish

from videoqa import Client, Settings, errors
from videoqa.cli.doctor import run_checks
from videoqa.cli.output import Check
from videoqa.jobs import Ledger, connect, connect_replica
from videoqa_worker.embedded.process import free_port

ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    with Replicated(tmp_path_factory.mktemp("replicated"), sentinels=1, quorum=1) as found:
        yield found


@pytest.fixture
def reading(replicated: Replicated) -> Settings:
    primary, replica = replicated.servers
    return Settings(
        redis_url=primary.url, redis_read_url=replica.url, prefix=f"t{secrets.token_hex(4)}"
    )


@pytest.fixture
def ledger(reading: Settings) -> Iterator[Ledger]:
    with connect(reading) as client:
        yield Ledger(client, url=reading.redis_url, prefix=reading.prefix)


@contextmanager
def behind(replicated: Replicated) -> Iterator[None]:
    """The replica gets nothing new within the block, and catches up at its end."""
    primary, replica = replicated.servers
    with replicated.connect(replica) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", free_port())
        try:
            yield
        finally:
            client.execute_command("REPLICAOF", "127.0.0.1", primary.port)
            wait_until(lambda: replicated.is_in_step(replica))


def catch_up(replicated: Replicated) -> None:
    with replicated.connect(replicated.servers[0]) as primary:
        primary.set("mark", 1)
        assert primary.wait(1, 5000) == 1


def test_sentinels_lead_reads_to_a_replica(replicated: Replicated, reading: Settings) -> None:
    settings = reading.model_copy(
        update={"redis_url": replicated.url, "redis_read_url": replicated.url}
    )

    def read_role() -> str:
        client = connect_replica(settings)
        assert client is not None
        with client:
            return str(client.info("replication")["role"])

    wait_until(lambda: read_role() == "slave")  # Sentinels look at replicas every 10 s
    with connect(settings) as primary:
        assert primary.info("replication")["role"] == "master"
    assert NAME in str(settings.redis_read_url)


def test_reads_are_the_replica_s(replicated: Replicated, reading: Settings, ledger: Ledger) -> None:
    with Client(settings=reading) as client:
        jobs = client.submit_many([ASKED | {"tags": ["shop"]} for _ in range(3)])
        finish(ledger, begin(ledger), q1="blue")
        ledger.reap(grace_s=15)  # else whoever asks for the queues makes the round
        catch_up(replicated)
        with replicated.connect(replicated.servers[0]) as primary:
            primary.config_resetstat()
            assert client.get(jobs[1].id).position == 0
            assert [job.id for job in client.list(tag="shop").jobs] == [
                j.id for j in reversed(jobs)
            ]
            assert client.get_states([job.id for job in jobs]) == ["succeeded", "queued", "queued"]
            assert [job.state for job in client.get_many([jobs[0].id]) if job] == ["succeeded"]
            assert client.result(jobs[0].id).answers[0].text == "blue"
            assert sum(queue.waiting for queue in client.queues()) == 2
            assert client.workers() == []
            done = primary.info("commandstats")
        asked = {name for name in done if name.startswith(("cmdstat_h", "cmdstat_z", "cmdstat_ev"))}
        assert asked == set(), "the primary is not asked for any of it"


def test_what_the_replica_has_not_got_yet_is_looked_up_at_the_primary(
    replicated: Replicated, reading: Settings, ledger: Ledger
) -> None:
    with Client(settings=reading) as client, Client(settings=reading) as other:
        old = client.submit(**ASKED)
        catch_up(replicated)
        with behind(replicated):
            new = client.submit(**ASKED)
            for each in (client, other):
                assert each.get(new.id).state == "queued"
                assert [job.id for job in each.get_many([new.id, old.id]) if job] == [
                    new.id,
                    old.id,
                ]
                assert each.get_states([new.id]) == ["queued"]
            finish(ledger, begin(ledger), q1="blue")
            assert other.result(old.id).answers[0].text == "blue", "no JobNotFinished of the past"
            assert client.wait(old.id, timeout_s=60).state == "succeeded"
            assert client.get(old.id).state == "succeeded", "it has been told of the end"
            assert client.cancel(new.id).state == "canceled"
            assert client.get(new.id).state == "canceled", "its own change"
            assert client.get_states([new.id]) == ["canceled"]
            assert client.retry(new.id).state == "queued"
        with pytest.raises(errors.JobNotFound):
            client.get("job_none")
        with pytest.raises(errors.JobNotFound):
            client.for_tenant("a").get(new.id)


def test_no_list_takes_a_job_out_of_the_index_because_a_replica_lacks_it(
    replicated: Replicated, reading: Settings
) -> None:
    with Client(settings=reading) as client:
        client.submit(**ASKED)
        catch_up(replicated)
        job = client.submit(**ASKED)
        catch_up(replicated)
        with behind(replicated):
            with replicated.connect(replicated.servers[1]) as replica:
                replica.config_set("replica-read-only", "no")
                replica.delete(client._backend.ledger.keys.job(job.id))
                replica.config_set("replica-read-only", "yes")
            assert len(client.list().jobs) == 2
    with Client(
        reading.redis_url, settings=reading.model_copy(update={"redis_read_url": None})
    ) as at_primary:
        assert len(at_primary.list().jobs) == 2


@pytest.mark.parametrize("why", ["away", "refuses"])
def test_the_primary_answers_while_the_replica_does_not(
    why: str, replicated: Replicated, reading: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "videoqa")
    url = f"redis://127.0.0.1:{free_port()}/0" if why == "away" else reading.redis_read_url
    with Client(settings=reading.model_copy(update={"redis_read_url": url})) as client:
        job = client.submit(**ASKED)
        with behind(replicated), replicated.connect(replicated.servers[1]) as replica:
            replica.config_set("replica-serve-stale-data", "no")
            assert client.get(job.id).state == "queued"
            assert len(client.list().jobs) == 1
            assert [queue.waiting for queue in client.queues() if queue.waiting] == [1]
            replica.config_set("replica-serve-stale-data", "yes")
    told = [record for record in caplog.records if "reading at the primary" in record.getMessage()]
    assert len(told) == 1


def test_doctor_looks_at_the_replica(replicated: Replicated, reading: Settings) -> None:
    def look(settings: Settings) -> Check:
        return next(check for check in run_checks(settings) if check.name == "reads")

    assert look(reading).ok
    with behind(replicated):
        assert not look(reading).ok
    away = reading.model_copy(update={"redis_read_url": f"redis://127.0.0.1:{free_port()}/0"})
    assert not look(away).ok
    assert "does not answer" in look(away).found
