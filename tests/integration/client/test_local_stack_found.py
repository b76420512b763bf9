"""Clients and commands find a running `videoqa up`, and the advice of messages is true for the case."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from videoqa import AsyncClient, Client, errors
from videoqa.jobs import translate_redis_errors
from videoqa.local_stack import LocalStack, find_settings
from videoqa.settings import Settings
from videoqa_worker.embedded.process import free_port

ASKED = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a local stack that does not run; no setting is set."""
    for name in [name for name in os.environ if name.startswith("VIDEOQA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VIDEOQA_HOME", str(tmp_path))
    return tmp_path


def save_note(home: Path, url: str, prefix: str = "videoqa") -> None:
    LocalStack(redis_url=url, pid=os.getpid(), model="demo", prefix=prefix).save(home)


def test_both_clients_find_a_running_stack_as_commands_do(home: Path, settings: Settings) -> None:
    assert find_settings() == Settings()
    save_note(home, settings.redis_url, settings.prefix)
    environ = {
        "VIDEOQA_HOME": str(home),
        "VIDEOQA_PREFIX": "other",
        "VIDEOQA_BROKER_URL": "amqp://h",
    }
    assert find_settings() == settings
    with Client.from_environment(environ) as client:
        job = client.submit(ASKED)

    async def get() -> str:
        async with AsyncClient.from_environment(environ) as client:
            return (await client.get(job.id)).id

    assert asyncio.run(get()) == job.id
    named = environ | {"VIDEOQA_REDIS_URL": "redis://h/1"}
    assert find_settings(named) == Settings(
        redis_url="redis://h/1", prefix="other", broker_url="amqp://h"
    )


def test_a_job_tells_that_the_worker_of_the_stack_is_starting(
    home: Path, settings: Settings
) -> None:
    with Client(settings=settings) as client:
        job, other = client.submit(ASKED), client.submit(**ASKED, model="org/m")
        assert client.get(job.id).waiting_for == "no running worker serves any model"
        save_note(home, settings.redis_url, settings.prefix)
        assert client.get(job.id).waiting_for == "the worker of `videoqa up`, which is starting"
        assert client.get(other.id).waiting_for == "no running worker serves model org/m"


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(errors.VideoQAError) as caught:
        call()
    return caught.value.message


def test_the_advice_for_a_redis_that_does_not_answer_is_true_for_the_case(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = f"redis://:secret@127.0.0.1:{free_port()}/0"

    def advice(url: str | None = None) -> str:
        client = Client(url) if url else Client.from_environment()
        with client:
            message = message_of(lambda: client.get("job_x"))
        assert "secret" not in message
        return message.rpartition("; ")[2]

    up, correct = "`videoqa up`", "start that server, or correct "
    assert advice(dead) == f"{correct}the URL of this client"
    save_note(home, dead)
    assert advice().startswith(f"end {up} (process {os.getpid()}) with Ctrl-C")
    other = dead.removesuffix("0") + "1"
    assert advice(other).endswith(f"Client.from_environment() finds the {up} that runs here")
    monkeypatch.setenv("VIDEOQA_REDIS_URL", other)
    assert advice() == f"{correct}VIDEOQA_REDIS_URL, or unset it to use the {up} that runs here"
    LocalStack.delete(home)
    assert advice() == f"{correct}VIDEOQA_REDIS_URL"


def test_where_nothing_is_set_and_nothing_runs_the_local_stack_is_named(home: Path) -> None:
    def refuse() -> None:
        with translate_redis_errors(Settings().redis_url):
            raise redis.exceptions.ConnectionError("refused")

    message = message_of(refuse)
    assert message.startswith("Redis at 127.0.0.1:6379 (the default; VIDEOQA_REDIS_URL is not set)")
    assert message.endswith("start the local stack with `videoqa up`, or set VIDEOQA_REDIS_URL")


def test_messages_name_a_variable_only_if_it_is_set(
    home: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = settings.redis_url.replace("://:", "://:wrong")
    too_high = settings.redis_url.removesuffix("0") + "9999"
    for url, says in ((wrong, "the password in "), (too_high, "the number at the end of ")):
        monkeypatch.delenv("VIDEOQA_REDIS_URL", raising=False)
        with Client(url) as client:
            assert message_of(lambda: client.get("job_x")).endswith(f"{says}the URL of this client")
            monkeypatch.setenv("VIDEOQA_REDIS_URL", url)
            assert message_of(lambda: client.get("job_x")).endswith(f"{says}VIDEOQA_REDIS_URL")
    monkeypatch.delenv("VIDEOQA_REDIS_URL")
    save_note(home, settings.redis_url, settings.prefix)
    with Client.from_environment() as client:
        message = message_of(lambda: client.get("job_x"))
    assert "(of the running `videoqa up`)" in message
    assert message.endswith("check the id")
