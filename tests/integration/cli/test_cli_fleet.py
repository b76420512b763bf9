"""Commands about many jobs, and an answer that is printed while it comes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from support.cli import Run, start_command
from support.processes import wait_until
from support.worker import begin, result_of
from typer.testing import CliRunner

from videoqa import Client, Job
from videoqa.cli.main import app
from videoqa.contract import PRIORITIES, Failure, WorkerInfo
from videoqa.jobs import Ledger, Progress, queue_name

ASKED = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


def fail(ledger: Ledger, code: str, token: str) -> str:
    claim = begin(ledger, token)
    failure = Failure(code=code, message="it is broken", attempt=1)
    assert ledger.fail(claim.job_id, token, failure, delay_s=0) == "failed"
    return claim.job_id


def test_jobs_are_listed_with_state_and_failure(run: Run, client: Client, ledger: Ledger) -> None:
    assert run("list").stdout == ""
    jobs = client.submit_many([{**ASKED, "tags": ["a"], "custom_id": "mine"}] * 3)
    fail(ledger, "corrupt_video", "x")
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == [
        "JOB", "STATE", "AGE", "INPUT", "QUESTION", "CUSTOM", "ID", "FAILURE",
    ]  # fmt: skip
    assert [line.split()[:2] for line in lines[1:]] == [
        [jobs[2].id, "queued"], [jobs[1].id, "queued"], [jobs[0].id, "failed"],
    ]  # fmt: skip
    assert lines[3].endswith("corrupt_video: it is broken")
    assert lines[1].split()[3:] == ["s3://b/clip.mp4", "What", "is", "it?", "mine"]
    first = run("list", "-n", "1", "--state", "queued", "--tag", "a")
    said = "note: more with --cursor "
    assert first.stderr.startswith(said)
    cursor = first.stderr.removeprefix(said).strip()
    second = run("list", "-n", "1", "--state", "queued", "--cursor", cursor, "--json")
    assert Job.model_validate_json(second.stdout).id == jobs[1].id
    wrong = run("list", "--state", "done")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "got state 'done', expected one of queued, " in wrong.stderr
    wrong = run("list", "--tag", "")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "tag: got '', expected at least 1 characters" in wrong.stderr


def test_a_page_names_the_records_that_it_leaves_out(
    run: Run, client: Client, redis_client: redis.Redis, ledger: Ledger
) -> None:
    jobs = client.submit_many([ASKED] * 3)
    for job in jobs[:2]:
        redis_client.hset(ledger.keys.job(job.id), "request", "{}")
    done = run("list")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [jobs[2].id]
    assert f"note: left out {jobs[1].id} and 1 more, whose records cannot be read;" in done.stderr
    assert done.stderr.count("\n") == 1
    why = run("status", jobs[1].id).stderr
    assert "does not understand JobRequest.inputs: Field required; a newer release or" in why
    assert (why.count("\n"), why.count("upgrade this side")) == (1, 1)
    redis_client.hset(ledger.keys.job(jobs[2].id), "request", "{}")
    done = run("list", "--json")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"note: left out {jobs[2].id} and 2 more" in done.stderr
    assert "no jobs yet" not in done.stderr


def test_what_happened_to_a_job_is_watched(run: Run, client: Client, ledger: Ledger) -> None:
    job = client.submit(ASKED)
    claim = begin(ledger)
    ledger.progress(job.id, "t", Progress("generating", question_id="q1", text="A cat"))
    ledger.finish(job.id, "t", result=result_of(claim, q1="A cat"), result_url="u")
    done = run("watch", job.id)
    assert done.returncode == 0
    assert [line.split("  ", 1)[1] for line in done.stdout.splitlines()] == [
        "queued", "running", "q1: A cat", "succeeded",
    ]  # fmt: skip
    kinds = [
        json.loads(line)["type"] for line in run("watch", job.id, "--json").stdout.splitlines()
    ]
    assert kinds == ["state", "state", "text", "state"]
    canceled = client.submit(ASKED)
    client.cancel(canceled.id)
    assert run("watch", canceled.id).returncode == 1
    assert run("watch", client.submit(ASKED).id, "--timeout", "0.2").returncode == 5


def test_dead_jobs_are_listed_shown_replayed_and_purged(
    run: Run, client: Client, ledger: Ledger
) -> None:
    client.submit_many([ASKED] * 4)
    corrupt = [fail(ledger, "corrupt_video", token) for token in "ab"]
    lost = [fail(ledger, "worker_lost", token) for token in "cd"]
    assert [line.split()[0] for line in run("dead", "list").stdout.splitlines()[1:]] == [
        *corrupt, *lost,
    ]  # fmt: skip
    assert "failure   worker_lost: it is broken" in run("dead", "show", lost[0]).stdout
    assert run("dead", "replay", lost[0]).stdout == f"{lost[0]}  queued again\n"
    assert run("dead", "replay", "--all", "--code", "worker_lost").stdout.split()[0] == lost[1]
    assert client.get(lost[1]).state == "queued"
    for wrong in (["replay"], ["purge", "--all", corrupt[0]]):
        done = run("dead", *wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert "expected ids of jobs, or --all" in done.stderr
    assert run("dead", "purge", "--all").returncode == 0
    assert list(client.dead()) == []


def test_use_is_counted_and_jobs_are_found_by_their_text(run: Run, client: Client) -> None:
    assert "no job ended on these days" in run("usage").stderr
    job = client.submit({**ASKED, "questions": ["Is it a cat?"], "tags": ["t"]})
    client.cancel(job.id)
    client.submit(ASKED)
    (head, row) = run("usage", "--by", "tag").stdout.splitlines()
    assert (head.split()[:4], row.split()[:4]) == (
        ["NAME", "SUCCEEDED", "FAILED", "CANCELED"], ["t", "0", "0", "1"],
    )  # fmt: skip
    assert json.loads(run("usage", "--json").stdout)["canceled"] == 1
    assert run("usage", "--until", "2020-01-01").stdout == ""
    assert json.loads(run("list", "--text", "CAT", "--json").stdout)["id"] == job.id
    for wrong in (["--by", "moon"], ["--since", "yesterday"], ["--since", "2020-01-01"]):
        assert run("usage", *wrong).returncode == 2
    client.retry(job.id)
    assert "expected a failed one" in run("dead", "purge", job.id).stderr


@pytest.mark.parametrize("command", [["list"], ["replay", "--all"], ["purge", "--all"]])
def test_a_code_that_no_error_has_is_refused_with_those_near_it(
    run: Run, client: Client, ledger: Ledger, command: list[str]
) -> None:
    client.submit_many([ASKED] * 2)
    corrupt = fail(ledger, "corrupt_video", "a")  # a worker of another release has this one
    fail(ledger, "worker_lost", "b")
    wrong = run("dead", *command, "--code", "VIDEO_CORUPT")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "got code 'VIDEO_CORUPT', expected an error's, such as video_corrupt" in wrong.stderr
    assert run("dead", *command, "--code", "").returncode == 2
    assert run("dead", *command, "--code", "video_corrupt").stdout == ""
    assert corrupt in run("dead", *command, "--code", "corrupt_video").stdout


@pytest.mark.parametrize("command", ["replay", "purge"])
def test_dead_jobs_that_end_or_are_retried_meanwhile_keep_no_other_from_it(
    client: Client,
    ledger: Ledger,
    redis_client: redis.Redis,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    client.submit_many([ASKED] * 3)
    retried, ended, other = (fail(ledger, "worker_lost", token) for token in "abc")
    dead = Client.dead

    def meanwhile(self: Client, *, code: str | None = None) -> Iterator[Job]:
        yield from dead(self, code=code)
        client.retry(retried)
        redis_client.delete(ledger.keys.job(ended))

    monkeypatch.setattr(Client, "dead", meanwhile)
    done = CliRunner().invoke(app, ["dead", command, "--all"], env=environment)
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [other]
    assert client.get(retried).state == "queued"
    assert list(dead(client)) == []


def test_one_job_is_retried(run: Run, client: Client) -> None:
    job = client.submit(ASKED)
    assert run("retry", job.id).returncode == 1
    client.cancel(job.id)
    assert "state     queued" in run("retry", job.id).stdout


def test_where_nothing_is_to_be_shown_the_next_step_is_said(run: Run, client: Client) -> None:
    for command, says in [
        (["list"], "no jobs yet; submit one: videoqa ask"),
        (["list", "--tag", "a"], "no job matches; `videoqa list` shows all"),
        (["list", "--model", "a", "--tenant", "b"], "no job matches; `videoqa list` shows all"),
        (
            ["list", "--since", "1h", "--until", "2026-01-01"],
            "no job matches; `videoqa list` shows all",
        ),
        (["dead", "list"], "no failed job\n"),
        (["dead", "replay", "--all"], "no failed job\n"),
        (["dead", "purge", "--all", "--code", "worker_lost"], "no failed job with worker_lost"),
        (["queue", "stats"], "no job waits, no queue is paused and no worker runs; start one with"),
        (["workers"], "no worker runs; start one with `videoqa worker`"),
    ]:
        done = run(*command)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith(f"note: {says}"), command
        assert run(*command, "--json").stderr == ""


def announce(ledger: Ledger, model: str = "org/m") -> WorkerInfo:
    now = datetime.now(UTC)
    queues = tuple(queue_name(ledger.keys.prefix, model, priority) for priority in PRIORITIES)
    info = WorkerInfo(
        id="gpu-1:42", model=model, queues=queues, slots=8, running=3, ready=True, state="ready", started_at=now,
        seen_at=now, host="gpu-1", device="cuda:0", version="0.1.0",
    )  # fmt: skip
    ledger.announce(info)
    return info


def test_workers_are_listed_with_device_version_and_host(run: Run, ledger: Ledger) -> None:
    info = announce(ledger)
    head, row = run("workers").stdout.splitlines()
    assert head.split() == [
        "WORKER", "STATE", "RUNNING", "SLOTS", "SEEN", "MODEL", "DEVICE", "VERSION", "HOST",
    ]  # fmt: skip
    assert row.split() == [
        "gpu-1:42", "ready", "3", "8", "0s", "ago", "org/m", "cuda:0", "0.1.0", "gpu-1",
    ]  # fmt: skip
    found = WorkerInfo.model_validate_json(run("workers", "--json").stdout)
    assert found.heard_s is not None
    assert found.model_copy(update={"heard_s": None}) == info


def test_a_model_that_nobody_knows_is_paused_only_if_that_is_meant(
    run: Run, client: Client, ledger: Ledger, environment: dict[str, str]
) -> None:
    announce(ledger)
    done = run("queue", "pause", "org/n")
    assert done.returncode == 2
    assert "did you mean org/m? (known: org/m); nothing was paused" in done.stderr
    _, end = on_a_terminal(environment, "queue", "pause", "org/n", answers="n\n")
    assert end() == 1
    assert not any(queue.paused for queue in client.queues())
    _, end = on_a_terminal(environment, "queue", "pause", "org/n", answers="y\n")
    assert end() == 0
    assert run("queue", "resume", "org/n").stderr == "note: resumed both queues of org/n\n"
    assert "no queue of org/n was paused" in run("queue", "resume", "org/n").stderr
    assert run("queue", "pause", "org/n", "--yes").returncode == 0
    done = run("queue", "pause", "org/m", "--priority", "bulk")
    assert done.stderr == (
        "note: paused the bulk queue of org/m; `videoqa queue resume org/m` ends that\n"
    )
    paused = {(queue.model, queue.priority) for queue in client.queues() if queue.paused}
    assert paused == {("org/n", "interactive"), ("org/n", "bulk"), ("org/m", "bulk")}


def test_queues_without_jobs_and_workers_are_forgotten(
    run: Run, client: Client, ledger: Ledger
) -> None:
    job = client.submit({**ASKED, "model": "org/typo"})
    assert run("queue", "stats").stdout.splitlines()[1].split()[0] == "org/typo"
    assert client.queues()[0].oldest_at == job.created_at
    client.cancel(job.id)
    assert client.queues() == []
    ledger.reap(grace_s=1)
    assert not ledger._redis.exists(ledger.keys.queues)
    client.retry(job.id)
    assert client.queues()[0].waiting == 1


def test_queues_are_counted_paused_and_resumed(run: Run, client: Client) -> None:
    client.submit({**ASKED, "model": "org/m", "priority": "bulk"})
    client.submit_many([ASKED] * 2)
    lines = [line.split() for line in run("queue", "stats").stdout.splitlines()]
    head = "MODEL PRIORITY STATE WAITING RUNNING DELAYED OLDEST WORKERS SLOTS"
    assert lines == [
        head.split(),
        ["(any)", "interactive", "open", "2", "0", "0", "0s", "0", "0"],
        ["org/m", "bulk", "open", "1", "0", "0", "0s", "0", "0"],
    ]
    assert run("queue", "pause", "org/m", "--priority", "bulk").returncode == 0
    assert run("queue", "stats").stdout.splitlines()[2].split()[2] == "paused"
    assert "resumed the bulk queue of org/m" in run("queue", "resume", "org/m").stderr
    assert not any(queue.paused for queue in client.queues())
    assert run("queue", "pause", "--priority", "some").returncode == 2


def on_a_terminal(
    environment: dict[str, str], *args: str, answers: str | None = None, width: int = 80
) -> tuple[list[str], Callable[[], int]]:
    """Starts the command; returns what it prints on stdout, growing, and a function that waits for its end.

    Arguments:
        answers: what is typed; None: stdin and stderr are not the terminal.
    """
    environment = {name: text for name, text in environment.items() if name != "COLUMNS"}
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    others: dict[str, Any] = {"stderr": subprocess.DEVNULL}
    if answers is not None:
        os.write(near, answers.encode())
        others = {"stdin": far, "stderr": far}
    process = start_command(*args, environment=environment, stdout=far, **others)
    os.close(far)
    seen: list[str] = []

    def read() -> None:
        while True:
            try:
                data = os.read(near, 1000)
            except OSError:  # the other end is closed
                break
            seen.append(data.decode())

    reader = threading.Thread(target=read)
    reader.start()

    def end() -> int:
        status = process.wait(60)
        reader.join(60)
        os.close(near)
        return status

    return seen, end


@pytest.mark.parametrize("width", [80, 120])
def test_tables_and_help_are_as_wide_as_the_terminal(
    environment: dict[str, str], client: Client, width: int
) -> None:
    client.submit(
        {**ASKED, "inputs": [f"s3://b/{'deep/' * 20}clip.mp4"], "questions": ["Why? " * 30]}
    )
    seen, end = on_a_terminal(environment, "list", width=width)
    assert end() == 0
    (row,) = "".join(seen).splitlines()[1:]
    assert width - 5 < len(row) <= width
    assert "deep/clip.mp4" in row
    assert "…" in row
    coloured = {name: text for name, text in environment.items() if name != "NO_COLOR"}
    seen, end = on_a_terminal(coloured | {"TERM": "xterm"}, "ask", "--help", width=width)
    assert end() == 0
    text = "".join(seen)
    assert "\x1b[36m-n, --frames N\x1b[0m" in text
    plain = re.sub(r"\x1b\[\d*m", "", text)
    assert width - 12 < max(map(len, plain.splitlines())) <= width
    seen, end = on_a_terminal(environment, "ask", "--help", width=width)
    assert end() == 0
    assert "".join(seen) == plain  # NO_COLOR


@pytest.mark.parametrize("last", ["A cat sleeps.", "Another answer."])
def test_on_a_terminal_the_answer_is_printed_while_it_comes(
    environment: dict[str, str], client: Client, ledger: Ledger, last: str
) -> None:
    seen, end = on_a_terminal(environment, "ask", "s3://b/clip.mp4", "What is it?")
    wait_until(lambda: client.list(state="queued").jobs)
    claim = begin(ledger)
    assert claim.request.stream
    ledger.progress(claim.job_id, "t", Progress("generating", question_id="q1", text="A cat "))
    wait_until(lambda: "".join(seen) == "A cat ")
    ledger.progress(claim.job_id, "t", Progress("generating", question_id="q1", text="sleeps."))
    ledger.finish(claim.job_id, "t", result=result_of(claim, q1=last), result_url="u")
    assert end() == 0
    said = "A cat sleeps.\r\n"  # printed once, unless it was not the answer in the end
    assert "".join(seen) == (said if last == "A cat sleeps." else f"{said}{last}\r\n")
