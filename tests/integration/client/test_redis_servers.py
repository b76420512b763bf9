"""Servers that cannot hold jobs: a Cluster's node, a Sentinel, a user without rights. Each is told at once."""

from __future__ import annotations

import asyncio
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import redis
from support.processes import wait_until

from videoqa import AsyncClient, Client, Settings, errors
from videoqa.cli.doctor import run_checks
from videoqa.jobs.permissions import CONSUMING, PUBLISHING, RECORDS
from videoqa_worker.__main__ import _check_redis
from videoqa_worker.embedded.process import ServerProcess, free_port, free_ports
from videoqa_worker.embedded.redis_server import RedisServer, find_server
from videoqa_worker.settings import WorkerSettings

ASKED = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("cluster")
    # By default the bus has the port 10,000 above, which may be another server's.
    port, bus_port = free_ports(2)
    extra = f"cluster-enabled yes\ncluster-port {bus_port}\n"
    with RedisServer(folder, port=port, extra=extra) as server:
        yield server.url


@pytest.fixture(scope="module")
def sentinel_url(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("sentinel"), free_port()
    config = folder / "sentinel.conf"
    watched = f"sentinel monitor jobs 127.0.0.1 {redis_server.port} 1"
    config.write_text(f"bind 127.0.0.1\nport {port}\ndir {folder}\n{watched}\n")
    command = [find_server({}), str(config), "--sentinel"]
    with ServerProcess("Sentinel", command, log_path=folder / "log") as process:
        with redis.Redis.from_url(f"redis://127.0.0.1:{port}") as client:
            wait_until(lambda: _answers(client), process=process)
        yield f"redis://127.0.0.1:{port}/0"


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:
        return False


@pytest.mark.parametrize("kind", ["cluster", "sentinel"])
@pytest.mark.parametrize("options", ["", "?db=2", "?protocol=2"])
def test_a_server_of_another_kind_is_told_before_anything_is_recorded(
    kind: str, options: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind}_url").removesuffix("/0") + options
    named = {"cluster": "node of a Cluster", "sentinel": "Sentinel"}[kind]

    async def submit() -> None:
        async with AsyncClient(url) as client:
            await client.submit(**ASKED)

    with Client(url) as client:
        for call in (lambda: client.submit(**ASKED), client.queues, lambda: asyncio.run(submit())):
            with pytest.raises(errors.ConfigurationError, match=named) as caught:
                call()
            assert caught.value.param == "redis_url"
    check = next(run_checks(Settings(redis_url=url)))
    assert (check.name, check.ok) == ("redis", False)
    assert named in check.found
    with pytest.raises(errors.ConfigurationError, match=named):
        _check_redis(WorkerSettings.from_environment({}, redis_url=url, model="demo"))


@pytest.mark.parametrize(
    ("kind", "said", "advised"),
    [
        ("cluster", "cannot hold messages: it is a node of a Cluster", "without cluster mode"),
        ("sentinel", "cannot hold messages: it is a Sentinel", "redis+sentinel://"),
        ("nobody", "does not answer", "correct the broker's URL"),
        ("wrong login", "refused the login", "check the password in the broker's URL"),
    ],
)
def test_doctor_names_a_broker_that_would_take_no_bell(
    kind: str, said: str, advised: str, settings: Settings, request: pytest.FixtureRequest
) -> None:
    """The jobs are recorded, so that a submit only warns, and workers find them late."""
    urls = {
        "nobody": f"redis://127.0.0.1:{free_port()}/0",
        "wrong login": limited(settings, "nobody-of-this-name").redis_url,
    }
    url = urls.get(kind) or request.getfixturevalue(f"{kind}_url")
    apart = settings.model_copy(update={"broker_url": url})
    checks = {check.name: check for check in run_checks(apart)}
    assert checks["redis"].ok
    assert not checks["broker"].ok
    assert said in checks["broker"].found
    assert advised in checks["broker"].next_step
    well = settings.model_copy(update={"broker_url": settings.redis_url})
    assert {check.name: check for check in run_checks(well)}["broker"].ok
    assert "broker" not in {check.name for check in run_checks(settings)}, "it is the same server"


@pytest.mark.parametrize("scheme", ["redis+cluster", "rediss+cluster"])
@pytest.mark.parametrize("name", ["redis_url", "broker_url"])
def test_the_url_of_a_cluster_is_refused_before_anything_is_recorded(
    name: str, scheme: str, settings: Settings, redis_client: redis.Redis
) -> None:
    """kombu would take what follows the plus for a host of its default port."""
    fields = settings.model_dump() | {name: f"{scheme}://127.0.0.1:7000/0"}
    with pytest.raises(errors.ConfigurationError, match="Redis without cluster mode") as caught:
        Client(settings=Settings(**fields)).submit(**ASKED)
    assert caught.value.param == name
    assert redis_client.keys(f"{settings.prefix}*") == []


@pytest.mark.parametrize(
    "says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"220 mail\r\n"]
)
def test_a_server_that_is_no_redis_is_told_as_what_it_is(says: bytes) -> None:
    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(says)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"redis://127.0.0.1:{server.server_address[1]}/0"
        with (
            Client(url) as client,
            pytest.raises(errors.ConfigurationError, match="does not speak"),
        ):
            client.submit(**ASKED)
        assert "does not speak" in next(run_checks(Settings(redis_url=url))).found
        server.shutdown()


def test_a_garbled_reply_is_a_broken_connection(client: Client, settings: Settings) -> None:
    """A proxy on the way may spoil a reply of a server that is the right one."""
    job = client.submit(**ASKED)
    spoils = threading.Event()

    class Spoil(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            port = urlsplit(settings.redis_url).port or 0
            with socket.create_connection(("127.0.0.1", port)) as upstream:
                pair = (self.request, upstream)
                while True:
                    for end in select.select(pair, (), ())[0]:
                        data = end.recv(65_536)
                        if not data:
                            return
                        if end is upstream and spoils.is_set():
                            spoils.clear()
                            data = b"\0" + data
                        pair[end is self.request].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Spoil) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        parts = urlsplit(settings.redis_url)
        url = parts._replace(
            netloc=f"{parts.netloc.rpartition(':')[0]}:{server.server_address[1]}"
        ).geturl()
        with Client(url, settings=settings) as behind:
            assert behind.get(job.id).state == "queued"
            spoils.set()
            assert behind.get(job.id).state == "queued", "the call is repeated on a new connection"
            assert not spoils.is_set()
        server.shutdown()


# -- rights


@pytest.fixture
def user(settings: Settings, redis_client: redis.Redis) -> Iterator[str]:
    """A user who may do everything below the prefix; the name is the password."""
    name, prefix = settings.prefix, settings.prefix
    patterns = (f"~{prefix}:*", f"~{prefix}.*", f"~_kombu.binding*.{prefix}.*")
    redis_client.execute_command("ACL", "SETUSER", name, "on", f">{name}", *patterns, "allcommands")
    yield name
    redis_client.execute_command("ACL", "DELUSER", name)


def limited(settings: Settings, user: str) -> Settings:
    host = settings.redis_url.rpartition("@")[2]
    return settings.model_copy(update={"redis_url": f"redis://{user}:{user}@{host}"})


COMMANDS = sorted({call.split()[0] for call in RECORDS + PUBLISHING} | {"EVAL", "EVALSHA", "MULTI"})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_refused_is_named_and_nothing_is_recorded(
    command: str, user: str, settings: Settings, redis_client: redis.Redis
) -> None:
    redis_client.execute_command("ACL", "SETUSER", user, f"-{command.lower()}")
    with (
        Client(settings=limited(settings, user)) as client,
        pytest.raises(errors.RedisUnavailable, match=rf"(?i)does not allow.*\b{command}\b.*users"),
    ):
        client.submit(**ASKED)
    assert redis_client.keys(f"*{settings.prefix}*") == []


def test_keys_that_are_refused_are_named_in_doctor_as_well(
    user: str, settings: Settings, redis_client: redis.Redis
) -> None:
    theirs = limited(settings, user)
    assert next(check for check in run_checks(theirs) if check.name == "permissions").ok
    redis_client.execute_command("ACL", "SETUSER", user, "resetkeys", f"~{settings.prefix}:*")
    check = next(check for check in run_checks(theirs) if check.name == "permissions")
    assert not check.ok
    assert f"{settings.prefix}.*, _kombu.binding.{settings.prefix}.*" in check.found
    assert "ZADD" not in check.found


LAST_OF_REDIS = ("workers", "backlog", "failures")


def test_doctor_goes_on_where_the_user_may_not_read(
    user: str, settings: Settings, redis_client: redis.Redis
) -> None:
    redis_client.execute_command("ACL", "SETUSER", user, "-zrange", "-evalsha", "-zrevrange")
    checks = run_checks(limited(settings, user))
    found = {name: next(each for each in checks if each.name == name) for name in LAST_OF_REDIS}
    for name, command in (("workers", "zrange"), ("backlog", "evalsha"), ("failures", "evalsha")):
        assert not found[name].ok
        assert f"'{command}'" in found[name].found
        assert "deploy/users.conf" in found[name].next_step


def test_a_worker_says_at_its_start_what_its_user_may_not(
    user: str,
    settings: Settings,
    redis_client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert [call.split()[0] for call in CONSUMING] == ["BRPOP"]
    redis_client.execute_command("ACL", "SETUSER", user, "-brpop")
    url = limited(settings, user).redis_url
    _check_redis(
        WorkerSettings.from_environment({}, redis_url=url, prefix=settings.prefix, model="demo")
    )
    assert "does not allow this user of the URL: BRPOP;" in caplog.text
