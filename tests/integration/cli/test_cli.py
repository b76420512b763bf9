"""The `videoqa` command against a real Valkey: in this process, but where only a process of its own can tell.

The worker's side is a thread that answers the job through the ledger.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from support.cli import COMMAND, Run, run_command

from videoqa import Client, Job, Result, __version__, errors
from videoqa.cli import main as cli
from videoqa.contract import (
    Answer,
    Failure,
    FrameUsed,
    Generation,
    GenerationInForce,
    JobState,
    Sampling,
    Usage,
    Warn,
    WorkerInfo,
)
from videoqa.jobs import Ledger, Progress
from videoqa.local_stack import LocalStack
from videoqa_worker.embedded.process import free_port
from videoqa_worker.embedded.redis_server import RedisServer

CLIP = "s3://b/clip.mp4"


def submit(client: Client, **fields: Any) -> Job:
    return client.submit(inputs=[CLIP], questions=["What is it?"], **fields)


def start(ledger: Ledger, job: Job) -> None:
    queue = f"{ledger.keys.prefix}.default.interactive"
    result = ledger.claim([queue], worker="host:1", lease_s=30, token="1")
    assert result.claim is not None, result
    assert result.claim.job_id == job.id


def fail(ledger: Ledger, job: Job) -> None:
    start(ledger, job)
    failure = Failure(code="source_not_found", message="s3://b/clip.mp4 does not exist", attempt=1)
    assert ledger.fail(job.id, "1", failure, delay_s=0) == "failed"


def answer(ledger: Ledger, job: Job, *, questions: int = 1) -> None:
    start(ledger, job)
    ledger.progress(job.id, "1", Progress("sampling", message="clip.mp4", done=2, total=8))
    answers = tuple(
        Answer(
            question_id=f"q{n}",
            question=f"Question {n}?",
            text=f"answer {n}",
            finish_reason="stop",
            input_tokens=5,
            output_tokens=2,
        )
        for n in range(1, questions + 1)
    )
    result = Result(
        job_id=job.id,
        answers=answers,
        frames=tuple(FrameUsed(input=0, index=n, pts_s=n / 4) for n in range(20)),
        sources=(),
        model="demo",
        sampling=Sampling(),
        generation=GenerationInForce(),
        usage=Usage(),
        warnings=(Warn(code="fewer_frames", message="the clip has 20 frames"),),
        attempt=1,
        created_at=job.created_at,
        finished_at=datetime.now(UTC),
    )
    assert ledger.finish(job.id, "1", result=result, result_url="file:///r.json") == "ok"


@contextmanager
def working(client: Client, ledger: Ledger, how: Callable[[Ledger, Job], None]) -> Iterator[None]:
    """A worker: waits for the first job of this prefix, and does `how` to it."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.02):
            ids = ledger._redis.zrange(
                ledger.keys.waiting(f"{ledger.keys.prefix}.default.interactive"), 0, 0
            )
            if isinstance(ids, list) and ids:
                how(ledger, client.get(ids[0]))
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(60)


def one_line(done: subprocess.CompletedProcess[str], code: str) -> str:
    """The error: the only line on stderr, by its code."""
    (line,) = done.stderr.splitlines()
    assert line.startswith("videoqa: ")
    assert line.endswith(f"({code})")
    return line


# -- ask and submit


def test_ask_prints_the_answer_alone_and_progress_beside_it(
    run: Run, client: Client, ledger: Ledger
) -> None:
    with working(client, ledger, answer):
        done = run("ask", CLIP, "What is it?", "--timeout", "30")
    assert (done.returncode, done.stdout) == (0, "answer 1\n")
    assert "taking frames 2/8 clip.mp4" in done.stderr
    assert "note: the clip has 20 frames" in done.stderr
    assert "demo saw the frames at 0.00, 0.25, " in done.stderr


def test_ask_with_json_prints_the_result_and_nothing_else(
    run: Run, client: Client, ledger: Ledger
) -> None:
    with working(client, ledger, answer):
        done = run("ask", CLIP, "-q", "What is it?", "--json", "--timeout", "30")
    assert (done.returncode, done.stderr) == (0, "")
    assert Result.model_validate_json(done.stdout).answers[0].text == "answer 1"


def test_ask_for_a_job_that_fails_ends_with_status_1(
    run: Run, client: Client, ledger: Ledger
) -> None:
    with working(client, ledger, fail):
        done = run("ask", CLIP, "What is it?", "--timeout", "30")
    assert (done.returncode, done.stdout) == (1, "")
    assert "failed: s3://b/clip.mp4 does not exist (source_not_found)" in done.stderr


def test_submit_prints_only_the_id_and_warns_where_nobody_would_answer(
    run: Run, client: Client, ledger: Ledger, tmp_path: Path
) -> None:
    done = run(
        "submit", str(tmp_path / "my clip.mp4"), "s3://b/p.png", "-q", "One?", "-q", "Two?",
        "--frames", "4", "--max-tokens", "9", "--start", "0", "--end", "2.5", "--model", "org/m",
        "--priority", "bulk", "--custom-id", "mine", "--output", "s3://o/{job_id}",
    )  # fmt: skip
    assert done.returncode == 0
    assert re.fullmatch(r"job_[0-9a-f]{27}\n", done.stdout)
    assert (
        done.stderr
        == "note: no running worker serves model org/m; the job waits until one starts\n"
    )
    request = ledger.request(done.stdout.strip())
    assert request.model_dump(exclude_defaults=True) == {
        "inputs": (
            {"url": (tmp_path / "my clip.mp4").as_uri(), "start": 0.0, "end": 2.5},
            {"kind": "image", "url": "s3://b/p.png", "guessed": True},
        ),
        "questions": ({"id": "q1", "text": "One?"}, {"id": "q2", "text": "Two?"}),
        "sampling": {"frames": 4},
        "generation": {"max_new_tokens": 9},
        "model": "org/m",
        "priority": "bulk",
        "custom_id": "mine",
        "output": "s3://o/{job_id}",
    }


@pytest.mark.parametrize(
    ("flags", "means"),
    [
        (["-n", "4", "--budget", "6"], {"frames": 4, "budget": 6}),
        (["--fps", "2", "--frames", "16"], {"method": "fps", "fps": 2.0, "frames": 16}),
        (["--times", "1,2.5, 4"], {"method": "times", "times": (1.0, 2.5, 4.0)}),
        (["--keyframes"], {"method": "keyframe"}),
        (
            ["--keyframes", "--tolerance", "0", "-n", "3"],
            {"method": "keyframe", "tolerance_s": 0.0, "frames": 3},
        ),
        (["--segments", "30"], {"method": "segment", "segment_s": 30.0}),
        (
            ["--shots", "--min-segment", "2"],
            {"method": "segment", "segment": "shots", "min_segment_s": 2.0},
        ),
        (
            ["--segments", "30", "--overlap", "2.5", "-n", "4"],
            {"method": "segment", "segment_s": 30.0, "overlap_s": 2.5, "frames": 4},
        ),
    ],
)
def test_flags_name_each_sampling_method(
    run: Run, ledger: Ledger, flags: list[str], means: dict[str, Any]
) -> None:
    done = run("submit", CLIP, "What?", *flags)
    assert done.returncode == 0, done.stderr
    sampling = ledger.request(done.stdout.strip()).sampling
    assert sampling.model_dump(exclude_defaults=True) == means


def test_ask_takes_the_sampling_flags_too(run: Run, client: Client, ledger: Ledger) -> None:
    seen: list[Sampling] = []

    def note(ledger: Ledger, job: Job) -> None:
        seen.append(ledger.request(job.id).sampling)
        answer(ledger, job)

    with working(client, ledger, note):
        done = run("ask", CLIP, "What?", "--times", "3", "--timeout", "30")
    assert done.returncode == 0
    assert seen == [Sampling(method="times", times=(3.0,))]


def test_every_field_that_a_shell_can_write_has_a_flag(run: Run, ledger: Ledger) -> None:
    before = datetime.now(UTC)
    done = run(
        "submit", CLIP, "What?", "--tag", "a", "--tag", "b", "--tenant", "acme", "--temperature", "0.5",
        "--top-p", "0.9", "--top-k", "40", "--min-p", "0.1", "--repetition-penalty", "1.2",
        "--frequency-penalty", "0.5", "--presence-penalty", "-1",
        "--seed", "3", "--stop", "END", "--stop", ".", "--cache", "off", "--metadata", "shop=17",
        "--metadata", "url=a=b", "--start-by", "2h", "--job-timeout", "30",
        "--system", "Be brief.", "--refine", "Shorten it.",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    request = ledger.request(done.stdout.strip())
    assert (request.tags, request.tenant, request.cache) == (("a", "b"), "acme", "off")
    assert request.metadata == {"shop": "17", "url": "a=b"}
    assert request.generation == Generation(
        temperature=0.5, seed=3, stop=("END", "."), top_p=0.9, top_k=40, min_p=0.1, repetition_penalty=1.2,
        frequency_penalty=0.5, presence_penalty=-1,
    )  # fmt: skip
    assert request.start_by is not None
    assert 7100 < (request.start_by - before).total_seconds() < 7300
    assert request.timeout_s == 30
    assert (request.system, request.refine) == ("Be brief.", "Shorten it.")


def test_a_start_by_without_a_zone_is_local_time(run: Run, ledger: Ledger) -> None:
    local = "2031-05-06T07:08"
    done = run("submit", CLIP, "What?", "--start-by", local)
    assert ledger.request(done.stdout.strip()).start_by == datetime.fromisoformat(local).astimezone(
        UTC
    )


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["a.mp4", "What", "is", "moving"], "a.mp4 'What is moving'"),
        (["a.mp4", "-n", "4", "What", "is", "it?"], "a.mp4 'What is it?' -n 4"),
        (["What is it?", "a.mp4"], "a.mp4 'What is it?'"),
        ([CLIP, "Why", "now"], f"{CLIP} 'Why now'"),
    ],
)
def test_a_question_without_quotes_is_refused_with_the_command_as_it_was_meant(
    run: Run, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    args: list[str], meant: str,
) -> None:  # fmt: skip
    (tmp_path / "a.mp4").touch()
    monkeypatch.chdir(tmp_path)
    for command in ("ask", "submit"):
        done = run(command, *args)
        assert done.returncode == 2
        line = one_line(done, "invalid_request")
        assert line.partition("in quotes: ")[2].removesuffix(" (invalid_request)") == (
            f"videoqa {command} {meant}"
        )
    assert client.list().jobs == ()


def test_a_file_that_is_not_there_or_in_place_of_the_question_is_refused(
    run: Run, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").touch()
    monkeypatch.chdir(tmp_path)
    for args, says in [
        (["tpyo.mp4", "What is it?"], "there is no file 'tpyo.mp4' in "),
        (["tpyo.mp4", "-q", "What is it?"], "there is no file 'tpyo.mp4' in "),
        (["a.mp4", "a.mp4"], "got the file 'a.mp4' in the place of the question"),
        (["a.mp4", CLIP], f"got the URL '{CLIP}' in the place of the question"),
    ]:
        done = run("ask", *args)
        assert done.returncode == 2
        assert says in one_line(done, "invalid_request")
    assert client.list().jobs == ()


def test_submit_takes_a_whole_request_from_a_file_or_stdin(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    text = json.dumps({"inputs": [CLIP], "questions": ["What?"], "metadata": {"a": "ü"}})
    (tmp_path / "request.json").write_text(text)
    named = run("submit", "--request", str(tmp_path / "request.json"))
    piped = run("submit", "--request", "-", "--json", stdin=text)
    assert (named.returncode, piped.returncode) == (0, 0)
    job = Job.model_validate_json(piped.stdout)
    assert (job.state, job.metadata) == ("queued", {"a": "ü"})
    assert ledger.request(named.stdout.strip()) == ledger.request(job.id)


@pytest.mark.parametrize(
    ("args", "stdin", "code", "says"),
    [
        (["submit", CLIP], "", "invalid_request", "got no question"),
        (["submit", CLIP, "q", "--frames", "0"], "", "invalid_request", "sampling.frames"),
        (["submit", CLIP, " "], "", "empty_question", "q1"),
        (["submit", CLIP, "q", "--fps", "1", "--keyframes"], "", "invalid_request", "one of them"),
        (["submit", CLIP, "q", "--tolerance", "1"], "", "invalid_request", "without --keyframes"),
        (["submit", CLIP, "q", "--overlap", "1"], "", "invalid_request", "without --segments"),
        (["ask", CLIP, "q", "--summary"], "", "invalid_request", "without --segments"),
        (
            ["submit", CLIP, "q", "--segments", "1", "--overlap", "1"],
            "",
            "invalid_request",
            "less than",
        ),
        (["submit", CLIP, CLIP, "q", "--segments", "1"], "", "invalid_request", "one video"),
        (["submit", CLIP, "q", "--times", "1;2"], "", "invalid_request", "'1;2'"),
        (["submit", CLIP, "q", "--times", "1", "-n", "2"], "", "invalid_request", "alone"),
        (["submit", CLIP, "q", "--fps", "0"], "", "invalid_request", "sampling.fps"),
        (["submit", "-q", "q"], "", "no_media", "name one"),
        (["submit", "--request", "-"], "[1]", "invalid_request", "expected one JSON object"),
        (["submit", "--request", "-"], "{", "invalid_request", "is not JSON"),
        (["submit", "--request", "-", "--priority", "bulk"], "{}", "invalid_request", "beside"),
        (["submit", "--request", "-", "--keyframes"], "{}", "invalid_request", "beside"),
        (["submit", "--request", "/no/such"], "", "invalid_request", "No such file"),
        (["ask", "", "q"], "", "invalid_request", "an empty name"),
        (["caption", "", "-q", "q", "-o", "out"], "", "invalid_request", "an empty source"),
        (["caption", CLIP, "-q", "q", "-o", ""], "", "invalid_request", "the output ''"),
        (["caption", CLIP, "-q", "q", "-o", "s3://"], "", "invalid_request", "the output 's3://'"),
        (["queue", "pause", ""], "", "invalid_request", "an empty model"),
        (["submit", CLIP, "q", "--metadata", "a"], "", "invalid_request", "expected KEY=VALUE"),
        (["submit", CLIP, "q", "--start-by", "soon"], "", "invalid_request", "--start-by 'soon'"),
        (["submit", CLIP, "q", "--cache", "no"], "", "invalid_request", "'refresh'"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(
    run: Run, args: list[str], stdin: str, code: str, says: str
) -> None:
    done = run(*args, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in one_line(done, code)


# -- status, wait, result, cancel


def test_status_says_why_a_job_waits(run: Run, client: Client, ledger: Ledger) -> None:
    first, second = submit(client), submit(client)
    done = run("status", second.id)
    assert done.returncode == 0
    assert f"job       {second.id}\nstate     queued\n" in done.stdout
    assert "waiting   no running worker serves any model (1 ahead of it)" in done.stdout
    now = datetime.now(UTC)
    queue = f"{ledger.keys.prefix}.default.interactive"
    ledger.announce(
        WorkerInfo(id="w", model="m", queues=(queue,), slots=1, running=0, ready=True,
                   started_at=now, seen_at=now)
    )  # fmt: skip
    done = run("status", first.id, "--json")
    assert Job.model_validate_json(done.stdout) == client.get(first.id, include_request=True)
    assert json.loads(done.stdout)["waiting_for"] == "a free worker"


def test_status_shows_what_a_job_was_asked_without_secrets(run: Run, client: Client) -> None:
    job = client.submit(
        inputs=[
            {"url": "https://me:secret@h/a.mp4?sig=secret", "start": 1, "end": 2.5},
            "s3://b/p.png",
        ],
        questions=["What\nis it?", "Why?"],
        sampling={"method": "fps", "fps": 2},
        generation={"max_new_tokens": 9, "temperature": 0.7, "seed": 3, "stop": ["END"]},
        tags=["a", "b"],
        tenant="acme",
        model="org/m",
    )
    for command in (["status"], ["dead", "show"]):
        shown = run(*command, job.id).stdout
        assert (
            "input     https://h/a.mp4, from 1 s to 2.5 s\n"
            "          s3://b/p.png\n"
            "question  What is it?\n"
            "          Why?\n"
            "model     org/m\n"
            "sampling  2 frames a second, at most 32\n"
            "answer    at most 9 tokens, temperature 0.7 and seed 3, ends before 'END'\n"
            "tenant    acme\n"
            "tags      a, b\n"
        ) in shown
        assert "secret" not in shown


def test_wait_and_result_of_a_job_that_succeeds(run: Run, client: Client, ledger: Ledger) -> None:
    job = submit(client)
    early = run("result", job.id)
    assert (early.returncode, early.stdout) == (1, "")
    assert "wait for it first" in one_line(early, "job_not_finished")
    with working(client, ledger, lambda ledger, job: answer(ledger, job, questions=2)):
        waited = run("wait", job.id)
    assert waited.returncode == 0
    assert "state     succeeded" in waited.stdout
    assert "result    file:///r.json" in waited.stdout
    done = run("result", job.id)
    assert (done.returncode, done.stdout) == (
        0,
        "Question 1?\n  answer 1\nQuestion 2?\n  answer 2\n",
    )
    again = run("result", job.id, "--wait", "--json")
    assert Result.model_validate_json(again.stdout) == client.result(job.id)


def test_wait_that_takes_too_long_ends_with_status_5(run: Run, client: Client) -> None:
    job = submit(client)
    done = run("wait", job.id, "--timeout", "0.1", "--json")
    assert (done.returncode, done.stdout) == (5, "")
    error = json.loads(done.stderr)["error"]
    assert (error["code"], error["param"]) == ("wait_timeout", None)
    assert client.get(job.id).state == "queued"


@pytest.mark.parametrize("timeout", ["nan", "inf", "-inf"])
def test_a_timeout_that_would_never_be_over_is_refused_and_nothing_submitted(
    run: Run, client: Client, timeout: str
) -> None:
    done = run("ask", CLIP, "What is it?", "--timeout", timeout)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"got --timeout {timeout}, expected a number" in one_line(done, "invalid_request")
    assert client.list().jobs == ()


def test_cancel_and_what_the_other_commands_say_then(run: Run, client: Client) -> None:
    job = submit(client)
    done = run("cancel", job.id)
    assert done.returncode == 0
    assert "state     canceled" in done.stdout
    result = run("result", job.id)
    assert (result.returncode, result.stdout) == (1, "")
    one_line(result, "canceled")
    waited = run("wait", job.id, "--json")
    assert waited.returncode == 1
    assert Job.model_validate_json(waited.stdout).state == "canceled"


def test_an_unknown_and_an_expired_id_end_with_status_3(
    run: Run, client: Client, ledger: Ledger
) -> None:
    one_line(unknown := run("status", "job_nope"), "job_not_found")
    job = client.cancel(submit(client).id)
    ledger._redis.delete(ledger.keys.job(job.id))
    one_line(expired := run("result", job.id), "job_expired")
    assert (unknown.returncode, expired.returncode) == (3, 3)


def test_a_result_object_that_is_gone_ends_with_status_6(
    run: Run, client: Client, ledger: Ledger
) -> None:
    job = submit(client)
    start(ledger, job)
    ledger.finish(job.id, "1", result=None, result_url="file:///no/such/result.json")
    done = run("result", job.id)
    assert (done.returncode, done.stdout) == (6, "")
    one_line(done, "output_not_found")


# -- Redis, settings, the shell


def test_a_redis_that_is_down_ends_with_status_4(run: Run) -> None:
    down = f"redis://:secret@127.0.0.1:{free_port()}/0"
    done = run("submit", CLIP, "What?", VIDEOQA_REDIS_URL=down)
    assert (done.returncode, done.stdout) == (4, "")
    assert "secret" not in one_line(done, "redis_unavailable")


def test_a_wrong_setting_ends_with_status_2_and_names_the_variable(
    run: Run, environment: dict[str, str]
) -> None:
    done = run("status", "job_x", VIDEOQA_SOCKET_TIMEOUT_S="soon")
    assert done.returncode == 2
    assert "VIDEOQA_SOCKET_TIMEOUT_S='soon'" in one_line(done, "configuration_error")
    wrong = environment | {"VIDEOQA_LEASE_S": "long"}
    done = run_command("worker", environment=wrong)  # it ends its process by itself
    assert (done.returncode, done.stdout) == (2, "")
    assert "VIDEOQA_LEASE_S='long'" in done.stderr


def test_wrong_usage_ends_with_status_2(run: Run) -> None:
    for args in (["status"], ["nonsense"], ["wait", "job_x", "--timeout", "soon"]):
        done = run(*args)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Error: " in done.stderr


def test_a_running_local_stack_is_found_by_its_note(
    run: Run, client: Client, redis_server: RedisServer, tmp_path: Path
) -> None:
    job = submit(client)
    home = tmp_path / "home"
    home.mkdir()
    prefix = client.settings.prefix
    LocalStack(redis_url=redis_server.url, pid=os.getpid(), model="demo", prefix=prefix).save(home)
    assert (home / "stack.json").stat().st_mode & 0o777 == 0o600
    assert job.id in run("status", job.id, VIDEOQA_REDIS_URL="").stdout
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    LocalStack(redis_url=redis_server.url, pid=gone.pid, model="demo").save(home)
    assert LocalStack.find(home) is None
    (home / "stack.json").write_text("{")
    assert LocalStack.find(home) is None


def test_a_reader_that_leaves_early_is_no_error(
    client: Client, environment: dict[str, str]
) -> None:
    job = submit(client)
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as gone:
        done = run_command("status", job.id, environment=environment, stdout=gone)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
def test_a_full_disk_under_the_output_is_one_line_and_status_6(
    client: Client, environment: dict[str, str]
) -> None:
    job = submit(client)
    for args in (["status", job.id], ["list", "--json"]):
        with open("/dev/full", "w") as full:
            done = run_command(*args, environment=environment, stdout=full)
        assert done.returncode == 6
        assert done.stderr.count("\n") == 1
        assert "No space left" in done.stderr


def test_output_that_nobody_wants_is_no_error(client: Client, environment: dict[str, str]) -> None:
    job = submit(client)
    done = subprocess.run(
        ["/bin/sh", "-c", f"'{COMMAND}' status {job.id} >&- <&-"], env=environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_doctor_without_redis_says_what_to_do_and_ends_with_status_1(run: Run) -> None:
    down = f"redis://127.0.0.1:{free_port()}/0"
    done = run("doctor", "--json", VIDEOQA_REDIS_URL=down, VIDEOQA_MODEL="demo", VIDEOQA_OUTPUT="x")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    found = {check["name"]: check for check in report["checks"]}
    assert (report["ok"], found["redis"]["ok"], found["redis"]["next_step"]) == (
        False, False, "start that server, or correct VIDEOQA_REDIS_URL",
    )  # fmt: skip
    assert "VIDEOQA_OUTPUT" in found["worker settings"]["found"]


def test_commands_of_a_missing_worker_say_what_to_install() -> None:
    for name in ("up", "worker", "demo", "frames"):
        missing = cli._placeholder(name)
        assert "needs the worker: pip install ./worker" in (missing.__doc__ or "")
        with pytest.raises(errors.ConfigurationError, match=r"pip install \./worker") as caught:
            missing()
        assert cli.exit_code(caught.value) == 2


def test_version_prints_both_distributions(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"videoqa {__version__}\nvideoqa-worker {__version__}\n"


def test_help_shows_every_command_under_a_heading(environment: dict[str, str]) -> None:
    text = run_command("--help", environment=environment).stdout
    groups = {
        section.partition(":")[0]: re.findall(r"^  (\w+)  ", section, re.MULTILINE)
        for section in text.split("\n\n")
    }
    assert groups["Start"] == ["demo", "up", "login", "logout", "doctor"]
    assert groups["Ask"] == ["ask", "caption", "frames"]
    assert groups["Operate"] == ["worker", "workers", "queue", "dead", "usage"]
    assert groups["Gateway"] == ["gateway", "keys", "webhooks"]
    shown = [
        name
        for heading in ("Start", "Ask", "Jobs", "Operate", "Gateway")
        for name in groups[heading]
    ]
    assert sorted(shown) == sorted(typer.main.get_group(cli.app).commands)
    assert "..." not in text.partition("Start:")[2]  # no sentence is cut off


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("ask", "ask [OPTIONS] INPUT... [QUESTION]"),
        ("workers", "workers [OPTIONS]"),
        ("submit", "submit [OPTIONS] [INPUT... [QUESTION]]"),
        ("caption", "caption [OPTIONS] SOURCE..."),
        ("frames", "frames [OPTIONS] [VIDEO]"),
        ("list", "list [OPTIONS]"),
        ("dead purge", "dead purge [OPTIONS] [ID...]"),
        ("queue pause", "queue pause [OPTIONS] [MODEL]"),
    ],
)
def test_help_shows_arguments_by_their_metavars(run: Run, command: str, usage: str) -> None:
    text = run(*command.split(), "--help").stdout
    assert text.startswith(f"Usage: videoqa {usage}\n")
    assert not re.search(r"<\w|default:", text)  # a type, or a default in another style


@pytest.mark.parametrize("command", ["ask", "submit", "caption"])
def test_options_have_the_same_headings_in_the_same_order(run: Run, command: str) -> None:
    headings = re.findall(r"^(\w+):$", run(command, "--help").stdout, re.MULTILINE)
    assert headings == ["Arguments", "Frames", "Answer", "Job", "Options"]


def test_help_of_list_names_every_state(run: Run) -> None:
    assert f"--state {'|'.join(get_args(JobState))}" in run("list", "--help").stdout
