"""The page Ask over HTTP: its form without a script, its mistakes, its uploads, and the programs that it offers."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import httpx
import pytest
from support.worker import announce, finish

from videoqa.client import Client
from videoqa.contract import JobRequest, parse_request
from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.access.sessions import COOKIE
from videoqa.gateway.dashboard.ask_form import AskForm
from videoqa.gateway.files.hiding import StorageUrls
from videoqa.gateway.resources import Resources
from videoqa.jobs import Ledger, queue_name
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

HOSTILE = "<script>alert(1)<\uff0fscript>\"'&.mp4"
FORM: dict[str, Any] = {
    "url": ["https://a.org/x.mp4", "https://a.org/y.png"],
    "start": ["1.5", ""],
    "end": ["", ""],
    "question": ['What\'s "it"?', "Why $HOME `id`?"],
    "method": "fps",
    "fps": "2",
    "frames": "6",
    "times": "1, 2",
    "max_new_tokens": "20",
    "seed": "7",
    "tags": "a, b",
    "model": "demo",
}
"""A form whose fields have what shells and Python would obey; `times` is of another method."""
MEANT = {
    "inputs": [
        {"kind": "video", "url": "https://a.org/x.mp4", "start": 1.5},
        "https://a.org/y.png",
    ],
    "questions": FORM["question"],
    "sampling": {"method": "fps", "fps": 2, "frames": 6},
    "generation": {"max_new_tokens": 20, "seed": 7},
    "tags": ["a", "b"],
    "model": "demo",
}


def read_request(http: httpx.Client, job_id: str) -> JobRequest:
    """Reads a job's request, without the key by which a client's second try is the same job."""
    request = parse_request(http.get(f"/v1/jobs/{job_id}").json()["request"])
    return request.model_copy(update={"idempotency_key": None})


def find_error(page: str, param: str) -> str | None:
    """Returns the words beside the field of this param."""
    found = re.search(rf'data-mistake="{re.escape(param)}"( hidden)?>([^<]*)<', page)
    assert found, param
    return None if found[1] else unescape(found[2])


def test_a_form_without_a_script_submits_what_it_says(connect: Connect) -> None:
    http = connect("submit", "read", tenant="a")
    answer = http.post("/ask", data=FORM)
    assert answer.status_code == 303, answer.text
    job_id = answer.headers["location"].rpartition("/")[2]
    assert answer.headers["location"] == f"/jobs/{job_id}"
    assert read_request(http, job_id) == parse_request(MEANT | {"tenant": "a"})
    only_submits = connect("submit", tenant="a")
    assert only_submits.post("/ask", data=FORM).headers["location"].startswith("/ask")
    assert connect("read", tenant="a").get("/ask").status_code == 403


def test_each_mistake_stands_beside_its_field_and_nothing_typed_is_lost(connect: Connect) -> None:
    http = connect("submit", tenant="a")
    wrong = FORM | {
        "url": ["https://a.org/x.mp4", "ftp://a.org/y"], "end": ["1", ""], "frames": "many", "seed": "-1",
        "question": ["<video> and?", "b" + HOSTILE],
    }  # fmt: skip
    answer = http.post("/ask", data=wrong)
    assert answer.status_code == 400
    assert "got scheme 'ftp'" in (find_error(answer.text, "inputs.1.url") or "")
    assert "expected more than start" in (find_error(answer.text, "inputs.0") or "")
    assert find_error(answer.text, "sampling.frames") == "got 'many', expected a whole number"
    assert find_error(answer.text, "generation.seed") == "got -1, expected at least 0"
    assert find_error(answer.text, "sampling.fps") is None
    assert "<script>alert" not in answer.text
    assert HOSTILE in unescape(answer.text)
    same = http.post("/ask", data=wrong, headers={"accept": "application/json"}).json()
    params = {one["param"] for one in same["mistakes"]}
    assert params == {"inputs.0", "inputs.1.url", "sampling.frames", "generation.seed"}
    marks = FORM | {"question": ["<video> and?"]}
    page = http.post("/ask", data=marks).text
    assert "marks, the job has 1 videos" in (find_error(page, "questions.0.text") or "")
    empty = http.post("/ask", data={})
    assert "upload a file, or type an address" in (find_error(empty.text, "inputs") or "")
    outside = http.post("/ask", data=FORM | {"url": "s3://secret/x.mp4", "start": ""})
    assert outside.status_code == 403
    assert "which this API key may read" in (find_error(outside.text, "inputs.0.url") or "")


def test_a_limit_is_told_with_the_time_of_its_end(keys: KeyStore, gateway: GatewayServer) -> None:
    key = keys.create("test", ("submit", "read"), jobs_per_day=1)
    headers = {"authorization": f"Bearer {key.text}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=30) as http:
        assert http.post("/ask", data=FORM).status_code == 303
        page = http.post("/ask", data=FORM)
        told = http.post("/ask", data=FORM, headers={"accept": "application/json"})
    assert page.status_code == told.status_code == 429
    assert int(page.headers["retry-after"]) == pytest.approx(
        int(told.headers["retry-after"]), abs=5
    )
    # The seconds that are left may be fewer by the second call.
    before, _, after = re.split(r"(in [\d,]+ s)", told.json()["mistakes"][0]["message"])
    assert re.search(re.escape(before) + r"in [\d,]+ s" + re.escape(after), unescape(page.text))
    assert "What&#39;s" in page.text, "the form as it was"


@pytest.fixture
def session(gateway: GatewayServer, keys: KeyStore) -> Iterator[httpx.Client]:
    """A browser's session of a tenant's key."""
    resources: Resources = gateway._app.state.resources
    key = keys.create("test", ("submit", "read"), tenant="a")
    token = resources.sessions.begin(resources.sessions.make_login(key.key.id))
    with httpx.Client(base_url=gateway.url, cookies={COOKIE: token}, timeout=30) as http:
        yield http


def test_a_form_of_a_session_needs_its_token_before_a_byte_of_a_file_is_kept(
    session: httpx.Client, gateway: GatewayServer
) -> None:
    token = re.search(r'name="csrf" value="(\w+)"', session.get("/ask").text)
    assert token
    for path in ("/ask", "/ask/check"):
        assert session.post(path, data=FORM).status_code == 403
        assert session.post(path, data=FORM | {"csrf": "0" * 64}).status_code == 403
    name = HOSTILE.replace('"', "")  # a form spells it %22
    file = {"file": (name, b"x" * 100_000)}
    assert session.post("/ask/upload", files=file).status_code == 403
    assert session.get("/v1/files").json()["data"] == []
    assert session.post("/ask", data=FORM | {"csrf": token[1]}).status_code == 303
    sent = session.post("/ask/upload", data={"csrf": token[1]}, files=file)
    assert sent.status_code == 303, sent.text
    (stored,) = session.get("/v1/files").json()["data"]
    assert (stored["bytes"], stored["filename"]) == (100_000, name)
    page = session.get(sent.headers["location"]).text
    assert f'name="url" value="{stored["id"]}"' in page
    assert "<script>alert" not in page
    assert name in unescape(page)
    foreign = session.post(
        "/ask", data=FORM | {"csrf": token[1]}, headers={"origin": "https://evil.example"}
    )
    assert foreign.status_code == 403


def test_an_earlier_job_is_asked_again_with_other_words(connect: Connect) -> None:
    http, other = connect("submit", "read", tenant="a"), connect("submit", "read", tenant="b")
    asked = MEANT | {"timeout_s": 77, "metadata": {"a": HOSTILE}, "webhook": "https://a.org/hook"}
    job_id = http.post("/v1/jobs", json=asked).json()["id"]
    page = http.get(f"/ask?from={job_id}").text
    assert "webhook is not carried over" in page
    carried = re.search(r'name="carried" value="([^"]*)"', page)
    assert carried
    assert json.loads(unescape(carried[1])) == {
        "timeout_s": 77,
        "metadata": {"a": HOSTILE},
    }
    assert ">What&#39;s &#34;it&#34;?</textarea>" in page
    assert other.get(f"/ask?from={job_id}").status_code == 404
    assert connect("submit", tenant="a").get(f"/ask?from={job_id}").status_code == 403


@pytest.mark.parametrize(
    "fields",
    [
        {},
        MEANT,
        {
            "sampling": {"method": "times", "times": [0.5, 2, 1e5]},
            "sheet": True,
            "priority": "bulk",
        },
        {
            "sampling": {"method": "segment", "segment_s": 2.5, "overlap_s": 1, "frames": 3},
            "summary": "All?",
        },
        {"sampling": {"method": "keyframe", "tolerance_s": 0.25, "budget": 9}, "sheet": False},
        {
            "generation": {
                "temperature": 0.7,
                "top_p": 0.9,
                "top_k": 9,
                "min_p": 0.5,
                "repetition_penalty": 1.5,
                "frequency_penalty": -0.5,
                "presence_penalty": 2,
                "stop": [".", "\u00e4 b"],
            },
            "cache": "off",
        },
    ],
)
def test_the_form_of_a_job_makes_its_request_again(
    fields: dict[str, Any], settings: Settings
) -> None:
    asked = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"], "stream": True} | fields
    with Client(settings=settings) as client:
        job = client.get(client.submit(asked).id, include_request=True)  # type: ignore[arg-type]
    assert job.request
    body = AskForm.of_job(job, StorageUrls(None)).make_body()
    assert parse_request(json.dumps(body), strict=True) == parse_request(asked | {"stream": True})


@pytest.fixture
def answering(ledger: Ledger) -> Iterator[None]:
    """Answers all jobs of the model `demo`, and of those that name none."""
    stopped = threading.Event()
    queues = [queue_name(ledger.keys.prefix, each, "interactive") for each in (None, "demo")]
    announce(ledger, "demo")

    def work() -> None:
        n = 0
        while not stopped.wait(0.01):
            claim = ledger.claim(queues, worker="host:1", lease_s=60, token=f"t{n}").claim
            if claim is not None:
                n += 1
                names = [question.id for question in claim.request.questions]
                finish(ledger, claim, **dict.fromkeys(names, "a cat"))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    stopped.set()
    thread.join(60)


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize(
    "changes", [{}, {"model": "", "stream": "on", "method": "", "start": ["", ""]}]
)
def test_the_programs_to_copy_submit_what_the_form_submits(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], tmp_path: Any
) -> None:
    http = connect("submit", "read", tenant="a")
    key = http.headers["authorization"].partition(" ")[2]
    monkeypatch.setenv("VIDEOQA_API_KEY", key)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    form = FORM | changes
    codes = http.post("/ask/check", data=form).json()["codes"]
    job = http.post("/ask", data=form, headers={"accept": "application/json"}).json()["job"]
    expected = read_request(http, job["id"])
    known = {job["id"]}

    def list_new() -> list[JobRequest]:
        """Returns the requests of jobs that are new since the last call, oldest first."""
        found = [one["id"] for one in http.get("/v1/jobs").json()["jobs"] if one["id"] not in known]
        known.update(found)
        return [read_request(http, one) for one in reversed(found)]

    assert shlex.split(codes["curl"].replace("\\\n", " "))[0] == "curl"
    done = subprocess.run(
        ["sh", "-c", codes["curl"]], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["result"]["answers"][0]["text"] == "a cat"
    assert list_new() == [expected]
    assert run_python(codes["python"]).count("a cat") == 2
    assert list_new() == [expected]
    assert run_python(codes["openai"]).count("a cat") == 2
    questions = list_new()
    assert [one.questions[0].text for one in questions] == form["question"]
    same = ("sampling", "generation", "model", "stream")
    for one in questions:
        assert one.model_dump(include={*same}) == expected.model_dump(include={*same})
        # OpenAI's parts name their kinds, which bare URLs do not.
        assert [(each.kind, each.url) for each in one.inputs] == [
            (each.kind, each.url) for each in expected.inputs
        ]


def run_python(code: str) -> str:
    """Runs a program in this process, and returns what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "copied", "exec"), {})
    return out.getvalue()


def test_what_a_chat_cannot_ask_is_said_in_place_of_its_program(connect: Connect) -> None:
    http = connect("submit", tenant="a")
    codes = http.post("/ask/check", data=FORM | {"method": "segment", "segment_s": "2"}).json()[
        "codes"
    ]
    assert codes["openai"].startswith("# Answers about segments")
    marks = http.post("/ask/check", data=FORM | {"question": "<video> <image> ?"}).json()
    assert marks["codes"]["openai"].startswith("# Marks in a question")
    assert marks["mistakes"] == []
    empty = http.post("/ask/check", data={}).json()
    assert "https://videos.example.org/clip.mp4" in empty["codes"]["curl"]
    assert empty["preview"] == {"inputs": []}


def test_frames_are_shown_without_a_script_or_the_reason_why_there_are_none(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videoqa.gateway.estimator.entry_points", lambda group: [])
    page = connect("submit").post("/ask", data=FORM | {"look": "1"})
    assert page.status_code == 200
    assert "is not installed beside it" in page.text
