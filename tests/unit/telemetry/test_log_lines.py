"""Log lines as workers and gateways write them: one form, one line each, and no secret in any."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from support.logs import configured_logs, parse_lines

from videoqa.telemetry.log_context import hide_texts, job_context, start_thread
from videoqa.telemetry.log_event import LogEvent

log = logging.getLogger("videoqa_worker.test")
STRANGE = LogEvent("strange", "warning", "strange: %(error)s", "", ("printed",))
JOB = {"job_id": "job_1", "attempt": 2, "model": "demo", "tenant": "acme", "trace_id": "ab" * 16}
HUSH = "hush0Hush1hush2"
SECRETS = {
    "password of a URL": f"redis://me:{HUSH}@h/0",
    "query of a URL": f"https://h/v.mp4?X-Amz-Signature={HUSH}",
    "API key": f"vqa_abcdefghijkl_{HUSH}{'x' * 34}",
    "half an API key": f"vqa_abcdefghijkl_{HUSH}",
    "bearer": f"sent Bearer {HUSH}",
    "authorization": f"Authorization: Digest {HUSH}",
    "authorization in a repr": f"{{'authorization': 'Bearer {HUSH}', 'a': 1}}",
    "bearer behind a tab": f"bearer\t{HUSH}",
    "token": f"'X-Vault-Token': '{HUSH}'",
    "secret": f"secret={HUSH}",
    "quoted URL": f"at https%3A%2F%2Fme%3A{HUSH}%40h%2Fv",
    "basic": f"basic {HUSH}",
    "AWS key id": f"AKIA{HUSH.upper()}ABCD",
    "AWS secret": f"aws_secret_access_key={HUSH}",
    "AWS secret in JSON": json.dumps({"SecretAccessKey": HUSH}),
    "AWS session": f"x-amz-security-token: {HUSH}",
    "signing secret": f"signed by whsec_{HUSH}=",
    "password": f"password = '{HUSH}'",
    "cookie": f"Cookie: videoqa_session={HUSH}",
    "model server's key": f"sk-proj-{HUSH}",
    "hub's key": f"hf_{HUSH}{HUSH}",
    "web token": f"eyJhbGciOiJ9.{HUSH}.{HUSH}",
}


def written(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("kind", SECRETS)
def test_no_line_has_a_secret(
    kind: str, form: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Tries a field, a library's message, its arguments, a traceback, a cause, and a warning."""
    secret = SECRETS[kind]
    with configured_logs(form), job_context(**JOB | {"tenant": secret}):  # type: ignore[arg-type]
        STRANGE.log(log, error=ValueError(secret), printed={"deep": [secret]})
        logging.getLogger("boto3.any").warning("sending %s", secret)
        try:
            try:
                raise KeyError(secret)
            except KeyError as error:
                raise RuntimeError(secret) from error
        except RuntimeError:
            logging.getLogger("celery").exception("failed with %s", secret)
        warnings.warn(secret, UserWarning, stacklevel=1)
    text = written(capsys)
    assert "strange" in text
    assert "celery" in text
    assert "UserWarning" in text
    for case in (HUSH, HUSH.upper()):
        assert case not in text


def test_a_field_that_is_named_as_a_secret_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    with configured_logs():
        STRANGE.log(log, error="x", printed={"password": 1234567, "token": "short", "tokens": "5"})
    assert parse_lines(written(capsys))[0]["printed"] == {
        "password": 1234567,
        "token": "***",
        "tokens": "5",
    }


def test_each_line_of_a_job_is_one_object_with_the_jobs_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with configured_logs(), job_context(**JOB):  # type: ignore[arg-type]
        STRANGE.log(log, error="two\nlines", printed="x\x1b[2J\u202e")
        logging.getLogger("transformers.models").warning("deprecated\nsoon")
        warnings.warn("old", UserWarning, stacklevel=1)
        start_thread(lambda: logging.getLogger("botocore").error("in a thread"), name="t").join()
        log.debug("not shown")
    text = written(capsys)
    lines = parse_lines(text)
    assert [line["message"].partition("\n")[0].partition(" at ")[0] for line in lines] == [
        "strange: two",
        "deprecated",
        "UserWarning",
        "in a thread",
    ]
    assert [line["event"] for line in lines] == [
        "strange",
        "library_line",
        "python_warning",
        "library_line",
    ]
    for line in lines:
        assert {name: line[name] for name in JOB} == JOB
        assert line["timestamp"].endswith("Z")
    assert lines[0]["printed"] == "x\x1b[2J\u202e"
    assert "\x1b" not in text
    assert "\u202e" not in text


class Textless:
    """An object that has no text, as a half made one of a library."""

    def __repr__(self) -> str:
        raise RuntimeError(HUSH)


@pytest.mark.parametrize("form", ["console", "json"])
def test_whatever_is_written_is_one_bounded_line_and_ends_nothing(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A logger that raises would end a job; one that writes a traceback of its own would write no JSON."""
    cyclic: dict[str, object] = {}
    cyclic["self"] = cyclic
    library = logging.getLogger("some_library")
    cause: ValueError | None = None
    for number in range(2_000):
        error = ValueError(f"{number} {'x' * 1_000}")
        error.__cause__, cause = cause, error
    with configured_logs(form), job_context(**JOB):  # type: ignore[arg-type]
        for value in (
            float("nan"), float("-inf"), 10**400, cyclic, ["x"] * 300_000, {"deep": {"k" * 50_000: ["y" * 50_000]}},
            Textless(), "\ud800 \udc80", b"\xff", "z" * 19_990 + f" Bearer {HUSH}",
        ):  # fmt: skip
            STRANGE.log(log, error="", printed=value)
            library.warning("got %s", value)
        library.warning("a number: %d", "none")
        library.warning("a chain", exc_info=cause)
    text = written(capsys)
    assert HUSH not in text
    assert max(map(len, text.splitlines())) < 150_000
    if form == "console":
        return
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert len(lines) == 22
    assert [line["event"] for line in lines].count("line_broken") == 3
    assert {line["job_id"] for line in lines} == {JOB["job_id"]}
    json.dumps(lines, ensure_ascii=False).encode()  # no half characters


def test_a_traceback_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    secret_local = HUSH
    with configured_logs(), job_context(**JOB):  # type: ignore[arg-type]
        try:
            raise ValueError("first")
        except ValueError as cause:
            try:
                raise RuntimeError(f"second {len(secret_local)}") from cause
            except RuntimeError:
                STRANGE.log(log, error="", printed="", exc_info=True)
    text = written(capsys)
    (line,) = parse_lines(text)
    assert [each["exc_type"] for each in line["exception"]] == ["RuntimeError", "ValueError"]
    assert line["exception"][0]["frames"][0]["name"] == "test_a_traceback_is_one_object"
    assert HUSH not in text, "local variables stand in no line"


def test_an_error_that_nobody_catches_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("nobody")

    with configured_logs():
        thread = threading.Thread(target=fail, name="lonely")
        thread.start()
        thread.join()
        sys.excepthook(ValueError, ValueError("main"), None)
    first, second = parse_lines(written(capsys))
    assert (first["event"], first["thread"]) == ("uncaught_error", "thread lonely")
    assert first["exception"][0]["exc_value"] == "nobody"
    assert (second["event"], second["thread"]) == ("uncaught_error", "the program")


def test_questions_and_answers_are_hidden_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    question, answer = "Who's the\nman?", "It is Bob, of course."
    for hides in (True, False):
        with (
            configured_logs(hide_text=hides),
            job_context(**JOB, texts=[question]),  # type: ignore[arg-type]
        ):
            hide_texts(answer)
            STRANGE.log(log, error=f"got {question!r}", printed=[json.dumps(question), answer])
            logging.getLogger("openai").warning("no answer to %s: %s", question, answer)
        text = written(capsys)
        assert len(parse_lines(text)) == 2
        for word in ("man?", "Bob"):
            assert (word in text) != hides


def test_a_handler_survives_the_end_of_the_stream_that_was_there_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that a test runs in this process has a stderr of its own, which is closed when it ends."""
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    with configured_logs():
        STRANGE.log(log, error="one", printed="")
        first_text = first.getvalue()
        first.close()
        STRANGE.log(log, error="lost", printed="")
        monkeypatch.setattr(sys, "stderr", second)
        STRANGE.log(log, error="two", printed="")
    monkeypatch.undo()
    assert "one" in first_text
    assert [line["error"] for line in parse_lines(second.getvalue())] == ["two"]
    assert "Logging error" not in written(capsys) + second.getvalue()


def test_a_client_in_somebodys_program_configures_nothing(tmp_path: Path) -> None:
    code = """
import logging, sys, warnings
before = logging.getLogger().handlers[:], warnings.showwarning, sys.excepthook
import videoqa, videoqa.client, videoqa.jobs.ledger, videoqa.backends.redis_backend
from videoqa.telemetry import log_events
assert (logging.getLogger().handlers[:], warnings.showwarning, sys.excepthook) == before
assert "structlog" not in sys.modules, "a client's start does not pay for it"
logging.basicConfig(format="%(name)s|%(levelname)s|%(message)s")
log_events.BELL_NOT_RUNG.log(logging.getLogger("videoqa.broker.doorbell"), error="away")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "videoqa.broker.doorbell|WARNING|what was recorded waits, and a worker will find it late: away"
    ]


def test_a_line_costs_little() -> None:
    with configured_logs():
        sink = io.StringIO()
        before, sys.stderr = sys.stderr, sink
        try:
            begun_s = time.process_time()
            with job_context(**JOB):  # type: ignore[arg-type]
                for _ in range(500):
                    STRANGE.log(log, error="Redis at 127.0.0.1:1 does not answer", printed="x")
            each_s = (time.process_time() - begun_s) / 500
        finally:
            sys.stderr = before
    assert each_s < 0.002
