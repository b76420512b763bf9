"""The commands over a gateway, by VIDEOQA_URL or by `videoqa login`."""

from __future__ import annotations

import json
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.cli import call_command, clean_environment
from support.gateway import make_key, serve_gateway
from support.worker import begin, finish, result_of

from videoqa.errors import ConfigurationError
from videoqa.gateway import GatewayServer
from videoqa.jobs import Ledger, queue_name
from videoqa.local_stack import LocalStack
from videoqa.login import find_redis_settings
from videoqa.settings import Settings


@pytest.fixture
def gateway(settings: Settings) -> Iterator[GatewayServer]:
    with serve_gateway(settings) as server:
        yield server


class Shell:
    """A shell of a user without Redis."""

    def __init__(self, folder: Path, **variables: str) -> None:
        own = {"XDG_CONFIG_HOME": str(folder / "config"), "XDG_STATE_HOME": str(folder / "state")}
        self.environment = clean_environment(**own, **variables)
        self.login = folder / "config/videoqa/login.json"

    def run(self, *args: str | Path, code: int = 0, stdin: str = "") -> Any:
        found = call_command(*args, environment=self.environment, stdin=stdin)
        assert found.returncode == code, found.stdout + found.stderr
        return found


@pytest.fixture
def shell(tmp_path: Path, settings: Settings, gateway: GatewayServer) -> Shell:
    return Shell(tmp_path, VIDEOQA_URL=gateway.url, VIDEOQA_API_KEY=make_key(settings))


def test_the_commands_about_jobs_work_over_a_gateway(shell: Shell, ledger: Ledger) -> None:
    job_id = json.loads(shell.run("submit", "--json", "https://h/a.mp4", "What?").stdout)["id"]
    status = json.loads(shell.run("status", "--json", job_id).stdout)
    assert (status["state"], status["request"]["questions"][0]["text"]) == ("queued", "What?")
    assert job_id in shell.run("list").stdout
    finish(ledger, begin(ledger, "t1"), q1="a cat")
    assert shell.run("wait", job_id).stdout
    assert "a cat" in shell.run("result", job_id).stdout
    result = json.loads(shell.run("result", "--format", "json", job_id).stdout)
    assert result["answers"][0]["text"] == "a cat"
    events = shell.run("watch", "--json", job_id).stdout.splitlines()
    assert [json.loads(event)["state"] for event in events] == ["queued", "running", "succeeded"]
    other = json.loads(shell.run("submit", "--json", "https://h/b.mp4", "What?").stdout)["id"]
    assert json.loads(shell.run("cancel", "--json", other).stdout)["state"] == "canceled"
    assert json.loads(shell.run("retry", "--json", other).stdout)["state"] == "queued"
    shell.run("queue", "pause", "--priority", "bulk")
    assert "paused" in shell.run("queue", "stats").stdout
    shell.run("queue", "resume")
    shell.run("workers")
    shell.run("dead", "list")
    assert shell.run("status", "job_never", code=3).stderr
    assert shell.run("wait", "--timeout", "0.1", other, code=5).stderr


def test_a_login_is_checked_kept_for_its_owner_and_used(
    tmp_path: Path, settings: Settings, gateway: GatewayServer
) -> None:
    shell, key = Shell(tmp_path), make_key(settings, "submit", "read")
    refused = shell.run("login", gateway.url, stdin=key[:-1] + "\n", code=2)
    assert "wrong_key" in refused.stderr or "API key" in refused.stderr
    assert not shell.login.exists()
    found = shell.run("login", gateway.url + "/", stdin=key + "\n")
    assert key not in found.stdout + found.stderr
    assert stat.S_IMODE(shell.login.stat().st_mode) == 0o600
    assert stat.S_IMODE(shell.login.parent.stat().st_mode) == 0o700
    job_id = json.loads(shell.run("submit", "--json", "https://h/a.mp4", "What?").stdout)["id"]
    assert job_id in shell.run("list", "--json").stdout
    denied = shell.run("workers", code=1)
    assert "expected operate" in denied.stderr
    assert "VIDEOQA_REDIS_URL" in shell.run("keys", "list", code=2).stderr
    assert "VIDEOQA_REDIS_URL" in shell.run("gateway", code=2).stderr
    # A Redis that is named wins, and another gateway does not get the key.
    shell.environment["VIDEOQA_REDIS_URL"] = settings.redis_url
    assert job_id not in shell.run("list", "--json").stdout
    del shell.environment["VIDEOQA_REDIS_URL"]
    shell.run("logout")
    assert not shell.login.exists()
    assert "no login" in shell.run("logout").stderr
    shell.login.write_text("{}")
    assert "videoqa login" in shell.run("list", code=2).stderr


def test_a_key_is_sent_to_the_gateway_of_its_login_only(tmp_path: Path) -> None:
    from videoqa.login import Login, find_client_settings

    Login("https://a.example", "vqa_1").save(tmp_path / "videoqa")
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    found = find_client_settings(environ)
    assert found.url == "https://a.example"
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == "vqa_1"
    for url in ("https://b.example", "http://a.example", "https://a.example:8443", "https://a.example.b"):  # fmt: skip
        assert find_client_settings(environ | {"VIDEOQA_URL": url}).api_key is None
    same = find_client_settings(environ | {"VIDEOQA_URL": "https://a.example:443/x"})
    assert same.api_key is not None
    assert find_client_settings(environ | {"VIDEOQA_REDIS_URL": "redis://h"}).url is None


def test_keys_are_not_made_in_the_stack_of_this_machine_for_another_gateway(tmp_path: Path) -> None:
    home = tmp_path / "videoqa"
    home.mkdir()
    LocalStack(
        redis_url="redis://h:1/0",
        pid=os.getpid(),
        model="demo",
        gateway_url="http://127.0.0.1:8080",
    ).save(home)
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    own = environ | {"VIDEOQA_URL": "http://127.0.0.1:8080/"}
    assert find_redis_settings("keys", environ).redis_url == "redis://h:1/0"
    assert find_redis_settings("keys", own).redis_url == "redis://h:1/0"
    with pytest.raises(ConfigurationError, match=r"a\.example alone"):
        find_redis_settings("keys", environ | {"VIDEOQA_URL": "https://a.example"})


def test_a_command_without_a_key_tells_where_to_put_one(shell: Shell) -> None:
    del shell.environment["VIDEOQA_API_KEY"]
    assert "set VIDEOQA_API_KEY" in shell.run("list", code=2).stderr
    assert "VIDEOQA_REDIS_URL" in shell.run("webhooks", "list", code=2).stderr


def test_doctor_checks_the_gateway_the_key_and_the_clock(
    shell: Shell, gateway: GatewayServer
) -> None:
    found = shell.run("doctor", "--json", code=1).stdout
    checks = {row["name"]: row for row in json.loads(found)["checks"]}
    assert [name for name, row in checks.items() if not row["ok"]] == ["workers"]
    assert {"gateway", "redis", "key", "clock"} <= checks.keys()
    shell.environment["VIDEOQA_API_KEY"] = "vqa_wrong"
    found = shell.run("doctor", "--json", code=1).stdout
    checks = {row["name"]: row for row in json.loads(found)["checks"]}
    assert not checks["key"]["ok"]
    assert "videoqa login" in checks["key"]["next_step"]


def test_an_archive_is_captioned_over_a_gateway_and_changed_rows_are_replaced(
    shell: Shell, settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    shell.environment["VIDEOQA_API_KEY"] = make_key(settings, "submit", "read")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"url": f"https://h/{n}.mp4"}) + "\n" for n in range(3)))
    output = tmp_path / "out"

    def caption(question: str, text: str, code: int = 0) -> dict[str, Any]:
        with working(ledger, text):
            ran = shell.run(
                "caption", rows, "-q", question, "--output", output, "--json", code=code
            )
        return dict(json.loads(ran.stdout.splitlines()[-1]))

    assert caption("What?", "a cat")["done"] == 3
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert [line["answers"][0]["text"] for line in lines] == ["a cat"] * 3
    assert caption("What?", "a dog")["skipped"] == 3
    assert caption("Why?", "it is hungry")["done"] == 3
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert [line["answers"][0]["text"] for line in lines] == ["it is hungry"] * 3


@contextmanager
def working(ledger: Ledger, text: str) -> Iterator[None]:
    """Plays a worker of bulk jobs in a thread."""
    over = threading.Event()

    def work() -> None:
        queue = queue_name(ledger.keys.prefix, None, "bulk")
        while not over.wait(0.02):
            token = secrets.token_hex(8)
            claim = ledger.claim([queue], worker="host:1", lease_s=60, token=token).claim
            if claim is not None:
                asked = claim.request
                own = {"custom_id": asked.custom_id, "metadata": asked.metadata}
                result = result_of(claim, q1=text).model_copy(update=own)
                ledger.finish(claim.job_id, token, result=result, result_url="memory://r")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
