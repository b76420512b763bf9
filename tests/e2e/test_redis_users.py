"""The users of deploy/users.conf, over TLS with a private authority: each may do its part, and no more."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from support.cli import call_command, clean_environment
from support.scenes import Scene, write_clip
from support.stack import WorkerProcess
from support.tls import TlsFront

from videoqa import AsyncClient, Client, Settings, errors
from videoqa.cli.doctor import run_checks
from videoqa.errors import ConfigurationError
from videoqa.gateway.access.audit import AuditLog, make_fields
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.access.rate_limits import RateLimits
from videoqa.gateway.access.sessions import SessionStore
from videoqa.gateway.batches.record import BatchRecord, Tally
from videoqa.gateway.batches.store import BatchStore, Part
from videoqa.gateway.openai.chat_calls import ChatCalls
from videoqa.gateway.webhooks import DeliveryAttempt, DeliveryStore, SigningSecrets
from videoqa.gateway.webhooks.deliveries import Outcome
from videoqa.jobs import connect
from videoqa.jobs.permissions import CONSUMING, PUBLISHING, RECORDS
from videoqa_worker.embedded.redis_server import RedisServer

USERS = (Path(__file__).parents[2] / "deploy" / "users.conf").read_text()
NAMES = ("producer", "gateway", "worker", "operator")


class Served:
    """A Valkey with these users, behind TLS that asks for the client's certificate."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        users = USERS.replace("user default off\n", "")  # the fixture logs in as that one first
        assert users != USERS
        self.passwords = {name: secrets.token_hex(8) for name in NAMES}
        for name, password in self.passwords.items():
            digest = hashlib.sha256(password.encode()).hexdigest()
            users = users.replace(f"{name.upper()}_SHA256", digest)
        users += "user admin on >admin allkeys allchannels allcommands\n"
        self.server = stack.enter_context(RedisServer(folder / "redis", extra=users))
        self.front = stack.enter_context(TlsFront(folder / "tls", self.server.port, mutual=True))
        url = f"redis://admin:admin@127.0.0.1:{self.server.port}"
        self.admin = stack.enter_context(redis.Redis.from_url(url, decode_responses=True))
        self.admin.execute_command("ACL", "SETUSER", "default", "off")

    def settings(self, name: str) -> Settings:
        front = self.front
        options = (
            f"ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={front.ca}"
            f"&ssl_certfile={front.certificate}&ssl_keyfile={front.key}"
        )
        login = f"{name}:{self.passwords[name]}"
        return Settings(redis_url=f"rediss://{login}@localhost:{front.port}/0?{options}")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with ExitStack() as stack:
        yield Served(tmp_path_factory.mktemp("users"), stack)


def test_each_user_does_its_part_of_the_whole_path(served: Served, tmp_path: Path) -> None:
    clip = write_clip(Scene.single("blue", "square", "left"), tmp_path / "clip.mp4")
    asked: dict[str, Any] = {"inputs": [clip.as_uri()], "questions": ["What color is it?"]}
    with (
        WorkerProcess(served.settings("worker"), tmp_path / "worker") as worker,
        Client(settings=served.settings("producer")) as producer,
        Client(settings=served.settings("operator")) as operator,
    ):
        worker.wait_ready(producer)
        streamed = producer.submit(**asked, stream=True, tags=["shop"], idempotency_key="one")
        pieces = list(producer.stream(streamed.id, timeout_s=60))
        assert "".join(piece.text for piece in pieces).endswith("blue")
        for job in producer.submit_many([asked, asked]):
            assert producer.wait(job.id, timeout_s=60).state == "succeeded"
        assert asyncio.run(_ask(served.settings("producer"), asked)) == "blue"
        operator.pause()
        waiting = producer.submit(**asked)
        assert producer.get(waiting.id).position == 0
        producer.cancel(waiting.id)
        operator.resume()
        lost = producer.submit(inputs=["file:///no/such.mp4"], questions=["?"])
        assert producer.wait(lost.id, timeout_s=60).state == "failed"
        assert [job.id for job in operator.dead()] == [lost.id]
        operator.retry(lost.id)
        assert operator.wait(lost.id, timeout_s=60).state == "failed"
        operator.purge(lost.id)
        assert [job.id for job in operator.list(tag="shop").jobs] == [streamed.id]
        assert operator.queues()
        failed = [check for check in run_checks(served.settings("operator")) if not check.ok]
        assert not {check.name for check in failed} & {"redis", "permissions", "workers"}
        _caption(served, clip, tmp_path / "worker" / "results" / "archive")
        assert worker.running()
        assert "does not allow" not in worker.log_tail(500)
    assert served.admin.acl_log() == [], "the server refused nothing to anybody"


async def _ask(settings: Settings, asked: dict[str, Any]) -> str:
    async with AsyncClient(settings=settings) as client:
        job = await client.submit(**asked)
        await client.wait(job.id, timeout_s=60)
        return (await client.result(job.id)).answers[0].text


def _caption(served: Served, clip: Path, output: Path) -> None:
    settings = served.settings("operator")
    ended = call_command(
        "caption", clip, "-q", "What color is it?", "-o", output, "--json",
        environment=clean_environment(VIDEOQA_REDIS_URL=settings.redis_url),
    )  # fmt: skip
    assert json.loads(ended.stdout)["done"] == 1, ended.stderr


def deliver_all(served: Served, own: redis.Redis) -> None:
    """Moves an entry of the outbox, notes a failed attempt, and replays it."""
    at = {"url": "redis://x", "prefix": "videoqa"}
    with Client(settings=served.settings("producer")) as client:
        asked = {"inputs": ["s3://b/x.mp4"], "questions": ["What?"], "webhook": "https://a.org/x"}
        job = client.submit({**asked, "model": "none"})
        client.cancel(job.id)
    store = DeliveryStore(own, **at)
    (leased,) = store.take(9, unproven=9, per_receiver=1, lease_s=9).deliveries
    attempt = DeliveryAttempt(at=datetime.now(UTC), status=410)
    store.settle(leased.id, Outcome("failed", attempt, is_gone=True), per_receiver=1)
    assert store.replay(leased.id, None).job_id == job.id
    assert len(store.find(None, job_id=job.id).deliveries) == 1
    assert SigningSecrets(own, **at).rotate(None).previous is not None


def move_batch(store: BatchStore) -> None:
    """Makes every call about a batch and its parts."""
    record = BatchRecord(
        id="batch_" + "0" * 24, tenant=None, key_id="k", input_file_id="file-x", input_name="content",
        input_bytes=1, parts_id="file-y", created_at=0, expires_at=1,
    )  # fmt: skip
    for joins in (True, False):
        assert store.create(record, call="c", body="b", joins=joins) == record.id
    assert store.take("me") == record.id
    assert store.move(record.id, ("validating",), "in_progress", holder="me") == "ok"
    assert store.hold(record.id, "me", {"total": "1"}) == "in_progress"
    store.add_part(record.id, 0, Part("part-0", Tally(completed=1)))
    assert store.read_parts(record.id).keys() == {0}
    assert store.read_drafts(record.id) == store.find_jobs(["videoqa:idem:x"])[1:]
    assert len(store.list(None, after=None, limit=5)[0]) == 1
    assert store.cancel(record.id) == "ok"
    assert store.move(record.id, ("cancelling",), "cancelled", holder="me") == "ok"
    store.close(record.id)


async def chat(calls: ChatCalls, served: Served) -> None:
    """Makes every call about a chat that is left."""
    async with AsyncClient(settings=served.settings("gateway")) as client:
        await calls.join("of", "call", "digest", "key")
        assert await calls.find(client, "digest", None) == "key"
        calls.leave(client, "of", "call", cancels=True)
        await calls._sweep(client)
        await calls.close()


def test_a_gateways_user_checks_keys_and_counts(served: Served) -> None:
    """Keys are made, and the audit log is read, by an operator."""
    served.admin.acl_log_reset()
    at = {"url": "redis://x", "prefix": "videoqa"}
    with connect(served.settings("operator")) as people, connect(served.settings("gateway")) as own:
        made = KeyStore(people, **at).create("web", ["submit"], rate="2/d", jobs_per_day=1)
        limits = RateLimits(own, **at)
        key = KeyStore(own, **at).check(made.text)
        refusals = [limits.count_request(key)[1] for _ in range(3)]
        assert [refusal is None for refusal in refusals] == [True, True, False]
        sessions = SessionStore(own, **at)
        token = sessions.begin(SessionStore(people, **at).make_login(key.id))
        assert sessions.find(token).key_id == key.id
        sessions.end(token)
        AuditLog(own, **at).write(make_fields(key.id, "POST /v1/jobs/{job_id}/cancel"))
        assert len(AuditLog(people, **at).read()) == 2
        deliver_all(served, own)
        move_batch(BatchStore(own, **at))
        asyncio.run(chat(ChatCalls(own, **at), served))
        KeyStore(people, **at).rotate(key.id)
        KeyStore(people, **at).revoke(key.id)
        assert KeyStore(people, **at).list() == []
    assert served.admin.acl_log() == []


@pytest.mark.parametrize(
    ("name", "command"),
    [
        *((name, ("GET", "other:job")) for name in NAMES),
        *((name, ("FLUSHALL",)) for name in NAMES),
        *((name, ("KEYS", "videoqa:*")) for name in NAMES),
        *((name, ("CONFIG", "GET", "requirepass")) for name in NAMES),
        *((name, ("ACL", "LIST")) for name in NAMES),
        *((name, ("SCRIPT", "FLUSH")) for name in NAMES),
        *((name, ("BRPOP", "videoqa.demo.bulk", "1")) for name in ("producer", "operator")),
        ("producer", ("CLIENT", "LIST")),
        ("worker", ("CLIENT", "LIST")),
        ("gateway", ("CLIENT", "LIST")),
    ],
)
def test_no_user_may_do_more(served: Served, name: str, command: tuple[str, ...]) -> None:
    with connect(served.settings(name)) as client:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command)
        served.admin.acl_log_reset()


def test_a_placeholder_in_place_of_a_password_keeps_the_server_from_starting(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigurationError, match="ended at its start"):
        RedisServer(tmp_path, extra=USERS)
    assert "password hash must be exactly 64 characters" in (tmp_path / "server.log").read_text()


def test_the_file_names_the_commands_that_are_checked() -> None:
    users = dict(re.findall(r"^user (\w+) on .*-@all (.*)$", USERS, re.M))
    assert tuple(users) == NAMES
    besides = {
        "del", "eval", "evalsha", "script|load", "multi", "exec", "ping", "info", "select",
        "client|setname", "client|setinfo", "client|id", "client|unblock", "wait",
    }  # fmt: skip
    producer = besides | {call.split()[0].lower() for call in RECORDS + PUBLISHING}
    consuming = {call.split()[0].lower() for call in CONSUMING}
    has = {name: {word.removeprefix("+") for word in text.split()} for name, text in users.items()}
    assert has["producer"] == producer
    assert has["gateway"] == producer | {"hsetnx", "incrby", "pttl", "rename", "xdel"}
    assert has["worker"] == producer | consuming
    assert has["operator"] > producer


def test_the_commands_of_all_scripts_and_calls_are_checked() -> None:
    checked = {call.split()[0] for call in (*RECORDS, *CONSUMING)} | {"DEL"}
    folder = Path(__file__).parents[2] / "producer" / "videoqa" / "jobs"
    texts = "".join(path.read_text() for path in [*folder.glob("lua/*.lua"), *folder.glob("*.py")])
    called = set(re.findall(r"(?:redis\.p?call\(|call_anew\(|call_on_dead\(id, )'(\w+)'", texts))
    assert called
    methods = set(re.findall(r"(?:_redis|pipe|client)\.([a-z]+)\(", texts))
    others = {"eval", "evalsha", "execute", "info", "pipeline", "delete", "close", "brpop"}
    assert called | {method.upper() for method in methods - others} <= checked


@pytest.mark.parametrize(
    ("drop", "said"),
    [("ssl_ca_certs", "CERTIFICATE_VERIFY_FAILED"), ("ssl_certfile", "does not answer")],
)
def test_a_certificate_that_is_missing_is_told(served: Served, drop: str, said: str) -> None:
    url = re.sub(rf"&?{drop}=[^&]*", "", served.settings("producer").redis_url)
    if drop == "ssl_certfile":
        url = re.sub(r"&ssl_keyfile=[^&]*", "", url)
    with Client(url) as client, pytest.raises(errors.RedisUnavailable, match=said):
        client.ping()
