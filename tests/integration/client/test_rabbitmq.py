"""RabbitMQ as the broker: what stands there, and submits when it takes nothing."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from support.processes import wait_until
from support.rabbitmq import MISSING, RabbitServer, find_rabbitmq
from support.tls import Certificates

from videoqa import Client, Settings, errors
from videoqa.cli.doctor import run_checks

pytestmark = pytest.mark.skipif(find_rabbitmq() is None, reason=MISSING)
LIMIT_S = 60.0
"""Time limit of connections, where none is to be waited for."""
AT_ONCE_S = LIMIT_S / 2
FROZEN_S = 10.0
"""Far above the limits of the client of a frozen server, which would answer never."""
ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    folder = tmp_path_factory.mktemp("rabbitmq")
    certificates = Certificates(folder / "certificates")
    with RabbitServer(folder / "server", certificates=certificates) as server:
        yield server


@pytest.fixture
def rabbit_settings(settings: Settings, rabbit: RabbitServer) -> Settings:
    return settings.model_copy(update={"broker_url": rabbit.url})


def test_a_fleet_has_one_durable_queue_for_each_priority(
    rabbit: RabbitServer, rabbit_settings: Settings
) -> None:
    with Client(settings=rabbit_settings) as client:
        for number in range(6):
            client.submit(ASKED | {"priority": ("interactive", "bulk")[number % 2]})
    listed = rabbit.control("list_queues", "name", "durable", "auto_delete", "messages")
    ours = sorted(line.split() for line in listed.splitlines() if rabbit_settings.prefix in line)
    queues = [f"{rabbit_settings.prefix}.default.{kind}" for kind in ("bulk", "interactive")]
    assert [[name, *rest[:2]] for name, *rest in ours] == [[q, "true", "false"] for q in queues]
    assert all(1 <= int(rest[-1]) <= 3 for _, *rest in ours)
    exchanges = rabbit.control("list_exchanges", "name").split()
    assert [name for name in exchanges if not name.startswith(("amq.", *queues))] == []


@pytest.mark.parametrize("is_over_tls", [False, True])
def test_a_submit_beside_a_memory_alarm_returns_at_once_and_the_job_is_recorded(
    is_over_tls: bool,
    rabbit: RabbitServer,
    rabbit_settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = {"socket_timeout_s": LIMIT_S, "connect_timeout_s": LIMIT_S}
    urls = {"broker_url": rabbit.tls_url} if is_over_tls else {}
    rabbit_settings = rabbit_settings.model_copy(update=limits | urls)

    def submit(client: Client) -> None:
        begun = time.monotonic()
        with caplog.at_level(logging.WARNING):
            job = client.submit(ASKED)
        assert time.monotonic() - begun < AT_ONCE_S
        assert client.get(job.id).state == "queued"
        assert "short of memory" in caplog.text
        caplog.clear()

    with Client(settings=rabbit_settings) as connected:
        connected.submit(ASKED)
        rabbit.control("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            for _ in range(3):
                submit(connected)
            begun = time.monotonic()
            with Client(settings=rabbit_settings) as fresh:
                submit(fresh)
            assert time.monotonic() - begun < AT_ONCE_S, "to close waits for nothing"
        finally:
            rabbit.control("set_vm_memory_high_watermark", "0.4")
        connected.submit(ASKED)
        assert caplog.text == ""


def test_a_submit_to_a_frozen_server_returns_in_time_and_the_job_is_recorded(
    rabbit: RabbitServer, rabbit_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    quick = rabbit_settings.model_copy(update={"socket_timeout_s": 0.5, "connect_timeout_s": 0.5})
    with Client(settings=quick) as client:
        client.submit(ASKED)
        os.kill(rabbit.process.pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            client.submit(ASKED)
            assert time.monotonic() - begun < FROZEN_S
        finally:
            os.kill(rabbit.process.pid, signal.SIGCONT)
        assert "a worker will find it late" in caplog.text

        def is_taken() -> bool:
            caplog.clear()
            client.submit(ASKED)
            return caplog.text == ""

        wait_until(is_taken)  # on a busy machine the server needs a while to catch up


def test_a_submit_after_the_server_was_killed_reaches_the_new_one(
    rabbit: RabbitServer, rabbit_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(settings=rabbit_settings) as client:
        for _ in range(3):
            client.submit(ASKED)
        rabbit.restart()
        client.submit(ASKED)
    assert caplog.text == ""
    assert rabbit.count_messages(f"{rabbit_settings.prefix}.default.interactive") >= 1


@pytest.mark.parametrize(
    ("host", "options", "said"),
    [
        ("localhost", "{all}", None),
        ("127.1", "{all}", "Hostname mismatch"),
        ("127.1", "{all}&ssl_check_hostname=false", None),
        ("localhost", "", "CERTIFICATE_VERIFY_FAILED"),
        ("localhost", "ssl_cert_reqs=none", "did not take the message"),  # it asks for ours
    ],
)
def test_the_certificate_and_the_name_of_the_server_are_checked(
    host: str, options: str, said: str | None, rabbit: RabbitServer, settings: Settings
) -> None:
    url, _, of_tls = rabbit.tls_url.replace("@localhost:", f"@{host}:").partition("?")
    fields = {"broker_url": f"{url}?{options.format(all=of_tls)}"}
    checks = {check.name: check for check in run_checks(settings.model_copy(update=fields))}
    assert checks["broker"].ok is (said is None), checks["broker"]
    assert (said or "") in checks["broker"].found
    assert rabbit.password not in checks["broker"].found


@pytest.mark.parametrize("option", ["ssl_ca_certs=/no/such", "ssl_password=x"])
def test_an_option_that_is_wrong_is_told_before_anything_is_recorded(
    option: str, rabbit: RabbitServer, settings: Settings, redis_client: redis.Redis
) -> None:
    url = f"{rabbit.tls_url.partition('?')[0]}?{option}"
    apart = settings.model_copy(update={"broker_url": url})
    with (
        Client(settings=apart) as client,
        pytest.raises(errors.ConfigurationError, match=option.partition("=")[0]),
    ):
        client.submit(ASKED)
    assert redis_client.keys(f"{settings.prefix}*") == []
