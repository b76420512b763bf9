"""Clients that find the primary by Sentinels: ledger, events and bells, before and after a failover."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from support.broker import make_channel
from support.processes import wait_until
from support.redis import count_blocked
from support.sentinels import NAME, Replicated
from support.tls import TlsFront

from videoqa import AsyncClient, Client, Settings, errors
from videoqa.broker import make_celery
from videoqa.cli.doctor import run_checks
from videoqa.jobs import connect
from videoqa_worker.embedded.process import free_port

ASKED = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}
PASSWORD = "of-the-sentinels"


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    folder = tmp_path_factory.mktemp("replicated")
    with Replicated(folder, sentinels=3, sentinel_password=PASSWORD, down_after_ms=60_000) as found:
        yield found


def count_bells(replicated: Replicated, prefix: str) -> int:
    primary = replicated.find_primary()
    assert primary is not None
    with replicated.connect(primary) as client:
        return sum(
            client.llen(key) for key in client.keys(f"{prefix}.*") if client.type(key) == "list"
        )


@pytest.mark.parametrize(
    ("said", "url"),
    [
        (
            "watch no primary of the name 'other'",
            "redis+sentinel://{login}{hosts}/other/0?{option}",
        ),
        ("of a Sentinel, whose password", "redis+sentinel://{login}{hosts}/{name}/0"),
        (
            "is no Sentinel",
            "redis+sentinel://{login}127.0.0.1:{primary}/{name}?sentinel_password={password}",
        ),
        ("no Sentinel answers", "redis+sentinel://{login}127.0.0.1:{nobody}/{name}"),
        ("refused the login", "redis+sentinel://:wrong@{hosts}/{name}/0?{option}"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_recorded(
    replicated: Replicated, said: str, url: str
) -> None:
    primary = replicated.find_primary()
    assert primary is not None
    url = url.format(
        login=f":{replicated.password}@",
        hosts=replicated.url.rpartition("@")[2].partition("/")[0],
        name=NAME,
        option=f"sentinel_password={PASSWORD}",
        primary=primary.port,
        password=replicated.password,
        nobody=free_port(),
    )

    async def submit() -> None:
        async with AsyncClient(url) as client:
            await client.submit(**ASKED)

    with Client(url) as client:
        for call in (lambda: client.submit(**ASKED), client.queues, lambda: asyncio.run(submit())):
            with pytest.raises((errors.ConfigurationError, errors.RedisUnavailable)) as caught:
                call()
            assert said in str(caught.value)
            assert PASSWORD not in str(caught.value)
            assert replicated.password not in str(caught.value)
    check = next(check for check in run_checks(Settings(redis_url=url)) if check.name == "redis")
    assert not check.ok
    assert said in check.found + check.next_step


def test_a_sentinel_that_names_a_replica_is_not_believed(replicated: Replicated) -> None:
    """Sentinels that were away name the old primary for some seconds; it answers reads."""
    primary = replicated.find_primary()
    (replica,) = (server for server in replicated.servers if server is not primary)

    class Stale:
        wants_replica = False

        def find(self) -> tuple[str, int]:
            return "127.0.0.1", replica.port

    with connect(Settings(redis_url=replicated.url)) as client:
        client.connection_pool.connection_class.finder = Stale()  # type: ignore[attr-defined]
        with pytest.raises(redis.exceptions.ConnectionError, match="not the primary"):
            client.ping()


def test_doctor_tells_what_each_sentinel_says(replicated: Replicated) -> None:
    def look(url: str) -> tuple[bool, str]:
        checks = {check.name: check for check in run_checks(Settings(redis_url=url))}
        return checks["sentinels"].ok, checks["sentinels"].found

    assert look(replicated.url) == (
        True,
        "3 of 3 answer; the primary is 127.0.0.1:" + str(replicated.find_primary().port),
    )  # type: ignore[union-attr]
    nobody = free_port()
    is_ok, found = look(replicated.url.replace(f"/{NAME}/", f",127.0.0.1:{nobody}/{NAME}/"))
    assert not is_ok
    assert "3 of 4 answer" in found
    assert str(nobody) in found


def test_open_clients_go_on_at_the_primary_that_was_elected(
    replicated: Replicated, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "videoqa")
    settings = Settings(redis_url=replicated.url, prefix="elected")
    old = replicated.find_primary()
    assert old is not None

    async def follow(client: Client) -> None:
        async with AsyncClient(settings=settings) as other:
            job = await other.submit(**ASKED)
            waiter = asyncio.create_task(other.wait(job.id, timeout_s=60))
            with replicated.connect(old) as plain:
                await asyncio.to_thread(wait_until, lambda: count_blocked(plain) >= 1)
            client.submit(**ASKED)
            assert await asyncio.to_thread(count_bells, replicated, "elected") > 0
            await asyncio.to_thread(replicated.fail_over_by_sentinel, old)
            caplog.clear()
            client.cancel(job.id)
            assert (await waiter).state == "canceled"
            before = await asyncio.to_thread(count_bells, replicated, "elected")
            assert (await other.submit(**ASKED | {"model": "m"})).state == "queued"
            assert await asyncio.to_thread(count_bells, replicated, "elected") > before
            assert client.submit(**ASKED).state == "queued"

    with Client(settings=settings) as client:
        asyncio.run(follow(client))
    assert "find it late" not in caplog.text, "the bells go to the new primary as well"


def test_a_broker_of_its_own_may_be_behind_sentinels(
    replicated: Replicated, settings: Settings
) -> None:
    apart = settings.model_copy(update={"broker_url": replicated.url})
    with Client(settings=apart) as client:
        client.submit(**ASKED)
    assert count_bells(replicated, settings.prefix) == 1


def test_kombu_s_own_spelling_is_refused_with_ours() -> None:
    with pytest.raises(errors.ConfigurationError, match=r"write redis\+sentinel://"):
        make_celery(Settings(broker_url="sentinel://h1:26379;sentinel://h2:26379"))


def test_the_sentinels_of_rediss_are_asked_over_tls(replicated: Replicated, tmp_path: Path) -> None:
    front = TlsFront(tmp_path, replicated.sentinels[0].port, mutual=True)
    options = f"ssl_ca_certs={front.ca}&ssl_certfile={front.certificate}&ssl_keyfile={front.key}"
    settings = Settings(
        redis_url=f"rediss+sentinel://localhost:{front.port}/{NAME}/0?sentinel_password={PASSWORD}&{options}"
    )
    primary = replicated.find_primary()
    assert primary is not None

    with front:
        for pool in (connect(settings).connection_pool, make_channel(settings)._get_pool()):
            assert pool.connection_class.finder.find() == ("127.0.0.1", primary.port)


def test_an_old_primary_that_lives_on_is_left_within_a_second_or_two(
    replicated: Replicated,
) -> None:
    """A failover that the old primary does not hear of leaves its connections open for some ten seconds."""
    settings = Settings(redis_url=replicated.url, prefix="left")
    old = replicated.find_primary()
    assert old is not None
    (new,) = (server for server in replicated.servers if server is not old)
    with Client(settings=settings) as client:
        client.submit(**ASKED)
        with redis.Redis(port=replicated.sentinels[0].port, password=PASSWORD) as sentinel:
            sentinel.execute_command("SENTINEL FAILOVER", NAME)
        wait_until(lambda: replicated.read_replication(new).get("role") == "master")
        assert replicated.read_replication(old)["role"] == "master", "it has not heard of it yet"
        with replicated.connect(new) as plain:

            def is_recorded_there() -> bool:
                return bool(
                    plain.exists(client._backend.ledger.keys.job(client.submit(**ASKED).id))
                )

            wait_until(is_recorded_there)
        assert replicated.read_replication(old)["role"] == "master", "we were faster than it"
