"""Text of servers, models and users reaches a terminal and a log without control characters."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.cli import COMMAND, Run
from support.logs import configured_logs
from support.processes import start, wait_until
from support.servers import HttpServer, Route

from videoqa import Client, Job, Result
from videoqa.contract import (
    Answer,
    Failure,
    GenerationInForce,
    Sampling,
    Usage,
    Warn,
)
from videoqa.jobs import Ledger, Progress
from videoqa.telemetry.log_context import job_context
from videoqa_worker.__main__ import main as run_worker
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import Sources

EVIL = "\x1b[2J\x1b]0;title\x07\u202etxt\u2066\x9b1m\x7f"
"""Clears the screen, sets its title, turns the direction."""
SHOWN = r"\x1b[2J\x1b]0;title\x07\u202etxt\u2066\x9b1m\x7f"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def claim(ledger: Ledger, job: Job) -> None:
    queue = f"{ledger.keys.prefix}.default.interactive"
    claim = ledger.claim([queue], worker=f"host{EVIL}", lease_s=30, token="1").claim
    assert claim is not None
    assert claim.job_id == job.id


def answer(ledger: Ledger, job: Job) -> None:
    claim(ledger, job)
    text = f"first\n\tsecond {EVIL}"
    result = Result(
        job_id=job.id,
        answers=(
            Answer(
                question_id="q1", question=f"a{EVIL}\nb", text=text, finish_reason="stop",
                input_tokens=1, output_tokens=1,
            ),
        ),
        frames=(), sources=(), model=f"m{EVIL}", sampling=Sampling(), generation=GenerationInForce(),
        usage=Usage(), warnings=(Warn(code="w", message=f"warned {EVIL}\nnote: forged"),), attempt=1,
        created_at=job.created_at, finished_at=datetime.now(UTC),
    )  # fmt: skip
    assert ledger.finish(job.id, "1", result=result, result_url=f"file:///{EVIL}") == "ok"


@pytest.fixture
def job(client: Client) -> Job:
    return client.submit(
        inputs=["s3://b/clip.mp4"], questions=[f"[red]What?{EVIL}\nforged"],
        custom_id=f"id{EVIL}\nforged", tags=[f"tag{EVIL}"], tenant=f"ten{EVIL}",
    )  # fmt: skip


def check(done: subprocess.CompletedProcess[str], *shown: str) -> None:
    text = done.stdout + done.stderr
    assert not CONTROLS.search(text), text
    assert "\nforged" not in text
    assert "\nnote: forged" not in text
    for one in shown:
        assert one in text


def test_an_answer_and_its_warning(run: Run, client: Client, ledger: Ledger, job: Job) -> None:
    answer(ledger, job)
    check(run("result", job.id), f"first\n\tsecond {SHOWN}", f"m{SHOWN}", f"warned {SHOWN}")
    raw = json.loads(run("result", job.id, "--json").stdout)
    assert raw["answers"][0]["text"] == f"first\n\tsecond {EVIL}"


def test_ids_labels_and_questions(run: Run, ledger: Ledger, job: Job) -> None:
    shown = (f"id{SHOWN}", f"[red]What?{SHOWN}")
    check(run("status", job.id), *shown, f"tag{SHOWN}", f"ten{SHOWN}")
    check(run("list", "--wide"), *shown)
    check(run("status", f"job_{EVIL}"), SHOWN)
    claim(ledger, job)
    check(run("status", job.id), f"host{SHOWN}")


def test_a_failure_and_the_events(run: Run, ledger: Ledger, job: Job) -> None:
    claim(ledger, job)
    ledger.progress(job.id, "1", Progress("fetching", message=f"clip{EVIL}.mp4\nforged"))
    failure = Failure(code="source_http_error", message=f"HTTP 999 {EVIL}\nforged", attempt=1)
    assert ledger.fail(job.id, "1", failure, delay_s=0) == "failed"
    check(run("status", job.id), f"HTTP 999 {SHOWN}")
    check(run("wait", job.id), f"HTTP 999 {SHOWN}", f"clip{SHOWN}.mp4")
    check(run("watch", job.id), f"clip{SHOWN}.mp4")
    check(run("dead", "list"), f"HTTP 999 {SHOWN}")


def test_names_of_files_and_options(run: Run, tmp_path: Path) -> None:
    check(run("caption", f"no{EVIL}\nforged", "-q", "q", "-o", str(tmp_path / "o")), SHOWN)
    check(run("frames", f"no{EVIL}\nforged.mp4"), SHOWN)
    check(run(f"--{EVIL}"), SHOWN)


def test_a_stream_on_a_terminal(
    environment: dict[str, str], client: Client, ledger: Ledger, tmp_path: Path
) -> None:
    near, far = pty.openpty()
    command = [COMMAND, "ask", "s3://b/clip.mp4", "[bold]What?"]
    process = start(command, env=environment, stdout=far, stderr=subprocess.PIPE)
    os.close(far)
    (job,) = wait_until(lambda: client.list().jobs, process=process)
    claim(ledger, job)
    pieces = ["fir", "st\n\tsec", "ond \x1b", "[2J\x1b]0;title\x07\u202e", "txt\u2066\x9b1m\x7f"]
    for piece in pieces:
        ledger.progress(job.id, "1", Progress("generating", question_id="q1", text=piece))
    failure = Failure(code="model_error", message=f"bad {EVIL}", attempt=1)
    assert ledger.fail(job.id, "1", failure, delay_s=0) == "failed"
    seen = b""
    try:
        while content := os.read(near, 4096):
            seen += content
    except OSError:  # the terminal's other side is closed
        pass
    os.close(near)
    told = process.stderr.read() if process.stderr else ""
    process.wait(60)
    text = seen.decode().replace("\r\n", "\n")
    assert f"first\n\tsecond {SHOWN}" in text
    assert not CONTROLS.search(text)
    assert f"bad {SHOWN}" in told
    assert not CONTROLS.search(told)


def test_the_log_of_a_worker(
    http_server: HttpServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A reason phrase, a redirect and a server's own error, as the worker's handler writes them."""
    import logging

    log = logging.getLogger("videoqa_worker.test")
    with (
        configured_logs("console"),
        job_context(job_id=f"job_1{EVIL}\nx", attempt=1, model="m", tenant=None, trace_id="1"),
    ):
        for status, headers in (
            (200, {"Content-Encoding": "x\u00e9\x1b[2J"}),
            (302, {"Location": "gopher\x1b[2J://h"}),
            (599, {}),
        ):
            http_server.routes["/a"] = Route(b"x", status=status, headers=headers)
            config = SourceConfig(spool_dir=tmp_path, private_addresses=True)
            with Sources(config) as sources:
                try:
                    with sources.open(http_server.url("/a")):
                        pass
                except Exception as error:
                    log.warning("%s", error, exc_info=error)
        log.error("%s\n2026-11-30 INFO forged", EVIL)
    written = capfd.readouterr().err
    assert SHOWN in written
    assert "job_id=job_1" + SHOWN in written
    assert "\n2026-11-30 INFO forged" not in written
    assert not CONTROLS.search(written)


def test_an_error_before_the_log_is_open(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIDEOQA_SLOTS", f"x{EVIL}")
    assert run_worker() == 2
    assert not CONTROLS.search(capsys.readouterr().err)
