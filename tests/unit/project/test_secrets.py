"""A marker in a password, a query, a fragment or a header is in no message that quotes what it came in."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import SecretStr
from support.cli import call_command, clean_environment
from support.logs import configured_logs

from videoqa import Client, errors
from videoqa.broker import make_celery
from videoqa.bulk import OutputDir
from videoqa.contract import parse_request, redact_url
from videoqa.redaction import redact_text
from videoqa.settings import Settings
from videoqa.storage import ObjectStore
from videoqa_worker.engine import ServerEngine
from videoqa_worker.settings import ServerConfig, SourceConfig, WorkerSettings
from videoqa_worker.sources import Sources

MARK = "hush"

URLS = [
    f"ftp://h/v.mp4?X-Amz-Signature={MARK}",
    f"htp://me:{MARK}@h/v.mp4",
    f"http:/me:{MARK}@h/v.mp4",
    f"me:{MARK}@h/v.mp4",
    f"h/v.mp4?token={MARK}",
    f"gopher://h/v.mp4#{MARK}",
    f"https://me:{MARK}@/v.mp4?sig={MARK}",
    f"https://?sig={MARK}",
    f"https://me:{MARK}@h\u2100/v.mp4",
    f"https://[me:{MARK}@h/v.mp4",
    f"s3://AKIA:{MARK}@bucket/k.mp4",
    f"s3://?{MARK}",
    f"file://me:{MARK}@host/v.mp4?{MARK}",
    f"ftp://h/{'v' * 9000}?{MARK}",
    f"ftp://h/v.mp4?email=a@b.c&sig={MARK}",
]
WITH_SCHEME = [url for url in URLS if "://" in url]
"""All others are paths for a command, and in a list the name of a row."""


def told(call: Callable[[], object]) -> str:
    """The message of the error that a call ends with, if it does."""
    try:
        call()
    except errors.VideoQAError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("url", URLS, ids=range(len(URLS)))
def test_a_request_that_is_refused_tells_none(url: str) -> None:
    good = {"inputs": ["s3://b/v.mp4"], "questions": ["q"], "custom_id": "c"}
    cases: list[dict[str, Any]] = [
        good | {"inputs": [url]},
        good | {"inputs": [{"url": url, "start": -1}]},
        good | {"inputs": [{"url": url, "kind": "song"}]},
        good | {"inputs": [{"url": url, "headers": {"Authorization": MARK}}]},
        good | {"inputs": [[url]]},
        good | {"inputs": url, "sampling": url},
        good | {"output": url + "/{job_id}"},
        good | {"output": url + "{job_id"},
        good | {"priority": url},
        good | {"metadata": {"key": f"{url} {MARK}" * 1024}},
    ]
    for case in cases:
        assert MARK not in told(lambda case=case: parse_request(case)) != ""
    text = json.dumps(good | {"inputs": [url]})
    for broken in (text[:-1], text.replace("[", "{", 1)):
        assert MARK not in told(lambda broken=broken: parse_request(broken)) != ""


@pytest.mark.parametrize("url", WITH_SCHEME, ids=range(len(WITH_SCHEME)))
def test_commands_that_refuse_a_url_tell_none(url: str, tmp_path: Path) -> None:
    environment = clean_environment(VIDEOQA_HOME=str(tmp_path))
    for command in (
        ("ask", url, "What?"),
        ("frames", url),
        ("caption", url, "-q", "What?", "-o", str(tmp_path / "out")),
        ("caption", str(tmp_path), "-q", "What?", "-o", url),
    ):
        ended = call_command(*command, environment=environment)
        assert ended.returncode != 0
        assert MARK not in ended.stdout + ended.stderr, command


@pytest.mark.parametrize("url", WITH_SCHEME, ids=range(len(WITH_SCHEME)))
def test_a_manifest_that_is_refused_tells_none(url: str, tmp_path: Path) -> None:
    for name, text in (
        ("m.jsonl", json.dumps({"url": url}) + "\n" + json.dumps({"url": url})[:-1]),
        ("m.csv", f"url,start\n{url},{url}\n"),
        ("m.txt", f"{url}\n{url}\n"),
    ):
        (tmp_path / name).write_text(text)
        ended = call_command(
            "caption", tmp_path / name, "-q", "What?", "-o", tmp_path / "out",
            environment=clean_environment(VIDEOQA_HOME=str(tmp_path)),
        )  # fmt: skip
        assert ended.returncode == 2
        assert MARK not in ended.stdout + ended.stderr


@pytest.mark.parametrize("url", URLS, ids=range(len(URLS)))
def test_a_source_or_an_object_that_cannot_be_used_tells_none(url: str, tmp_path: Path) -> None:
    config = SourceConfig(spool_dir=tmp_path, connect_timeout_s=0.2)
    with Sources(config) as sources, ExitStack() as stack:
        assert MARK not in told(lambda: stack.enter_context(sources.open(url))) != ""
    store = ObjectStore(file_roots=())
    for call in (
        store.check,
        store.read,
        lambda url: store.write(url, b""),
        lambda url: list(store.list(url)),
        lambda url: OutputDir(url, store),
    ):
        assert MARK not in told(lambda call=call: call(url))


SERVERS = [
    f"redis://:{MARK}@h:port/0",
    f"redis://:{MARK}#x@h:1/0",
    f"redis://:x#{MARK}@h:1/0",
    f"redis://:{MARK}/x@h:1/0",
    f"redis://:x/{MARK}@h:1/0",
    f"redis://:{MARK}?x@h:1/0",
    f"redis://:x?{MARK}=y@h:1/0",
    f"redis://:x?db={MARK}@h:1/0",
    f"redis://:x?a=b&client_name={MARK} @h:1/0",
    f"redis://:12/{MARK}@h:1/0",
    f"redis://:{MARK}@[h/0",
    f"redis://me:{MARK}@h\u2100/0",
    f"redis://h/0?unheard_of={MARK}",
    f"redis://:12?{MARK}@h:1/0",
    f"redis://:12?db={MARK}@h:1/0",
    f"rediss://:{MARK}@h/0?ssl_password={MARK}%20x",
    f"unix://:{MARK}@/run/x.sock?password={MARK}&db=x",
    f"valkey://:{MARK}@h/0",
    f"amqp://me:{MARK}@h:port//",
    f"amqp://me:{MARK}@127.0.0.1:1//?x={MARK}",
    f"amqp://me:x@h//;amqp://me:{MARK}@h:port//",
    f"redis://:{MARK}@127.0.0.1:1/0",
    f"me:{MARK}@h",
]


@pytest.mark.parametrize("url", SERVERS, ids=range(len(SERVERS)))
@pytest.mark.parametrize("name", ["VIDEOQA_REDIS_URL", "VIDEOQA_BROKER_URL"])
def test_a_server_that_cannot_be_reached_is_told_without_its_password(
    name: str, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def use() -> None:
        settings = Settings.from_environment({name: url, "VIDEOQA_CONNECT_TIMEOUT_S": "0.2"})
        if name == "VIDEOQA_BROKER_URL":
            make_celery(settings)
        else:
            with Client(settings=settings) as client:
                client.get("job_x")

    assert MARK not in told(use)
    if name == "VIDEOQA_REDIS_URL":
        assert MARK not in told(lambda: Client(url).get("job_x"))
    assert MARK not in caplog.text


@pytest.mark.parametrize("name", [row.name for row in WorkerSettings.table()])
def test_a_setting_that_is_refused_is_shown_without_its_secrets(name: str) -> None:
    for value in URLS:
        assert MARK not in told(lambda value=value: WorkerSettings.from_environment({name: value}))


@pytest.mark.parametrize("password", ["change-me", "Change-Me", "changeme"])
@pytest.mark.parametrize("settings", [Settings, WorkerSettings])
def test_a_password_of_the_examples_is_refused(settings: type[Settings], password: str) -> None:
    for name in ("VIDEOQA_REDIS_URL", "VIDEOQA_BROKER_URL"):
        with pytest.raises(errors.ConfigurationError, match="a password of your own") as caught:
            settings.from_environment({name: f"redis://:{password}@h/0"})
        assert password not in str(caught.value)
    with pytest.raises(errors.ConfigurationError, match="a password of your own"):
        Client(f"redis://:{password}@h/0")


class Echo(BaseHTTPRequestHandler):
    """A model server that repeats the key that it was sent."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"error": {"message": f"unknown key {self.headers['Authorization']}"}})
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_model_server_that_repeats_the_key_is_not_quoted() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        engine = ServerEngine(ServerConfig(url=url, model="m", api_key=SecretStr(MARK)))
        text = told(engine.start)
        engine.close()
        server.shutdown()
    assert "unknown key" in text
    assert MARK not in text


def test_what_a_library_logs_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    with configured_logs("console"):
        logging.getLogger("library").warning("cannot reach %s", f"amqp://me:{MARK}@h//?a={MARK}")
    shown = capsys.readouterr().err
    assert "cannot reach amqp://h//" in shown
    assert MARK not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:x@h:8/v.mp4?a=b#c", "https://h:8/v.mp4"),
        ("HTTPS://h/v.mp4", "https://h/v.mp4"),
        ("http://h:80/@user/v.mp4", "http://h:80/@user/v.mp4"),
        ("http://[::1]:80/v?x", "http://[::1]:80/v"),
        ("redis://:pa/ss@h/0", "redis://***"),
        (
            "redis+sentinel://me:x@h1:26379,h2/jobs/0?sentinel_password=x",
            "redis+sentinel://h1:26379,h2/jobs/0",
        ),
        ("redis+sentinel://:1,2/x@h1/jobs/0", "redis+sentinel://***"),
        ("amqp://a:b@h;amqp://a:b@g", "amqp://h;amqp://g"),
        ("me:x@h/v", "h/v"),
        ("plain", "plain"),
    ],
)
def test_a_redacted_url_still_tells_where(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert redact_text(f'no answer from "{url}".') == f'no answer from "{shown}".'


def test_redaction_takes_no_time() -> None:
    for text in ("@" * 100_000, "a://" * 25_000, ";a://" * 20_000, "[" * 100_000, "a@?=" * 25_000):
        begun_s = time.process_time()
        redact_url(text)
        redact_text(text)
        redact_text(text.replace("/", " "))
        assert time.process_time() - begun_s < 0.25
