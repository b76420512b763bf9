"""A request is checked as by a submit, and its cost is told by the dry run's code, in confined processes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from support.processes import wait_until
from support.servers import HttpServer, Route
from support.videos import Recipe

from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore

Connect = Callable[..., httpx.Client]

PATH = "/v1/jobs/validate"
ASKED: dict[str, Any] = {"inputs": ["https://a.org/x.mp4"], "questions": ["What is it?"]}


@pytest.fixture
def http(environ: Path, gateway: GatewayServer, keys: KeyStore) -> Iterator[httpx.Client]:
    """A key that may name files of the folder."""
    key = keys.create("test", ["submit"], inputs=["http://", "https://", environ.as_uri() + "/"])
    headers = {"authorization": f"Bearer {key.text}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=60) as client:
        yield client


def ask(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post(PATH, json=ASKED | fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["valid"]
    return found


def ask_ready(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    """Asks until the process has started, which takes longer than a request's time on a busy machine."""
    found: list[dict[str, Any]] = []

    def is_ready() -> bool:
        found.append(ask(http, **fields))
        return found[-1]["reason"] not in ("too_slow", "probe_failed")

    wait_until(is_ready)
    return found[-1]


def find_children(module: str = "videoqa_worker.cli.dry_run") -> list[psutil.Process]:
    """Finds the processes of estimates that this one has started."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if module in child.cmdline():
                found.append(child)
    return found


def test_frames_tokens_and_bytes_are_told_and_each_input_has_its_own_error(
    http: httpx.Client,
    http_server: HttpServer,
    make_clip: Callable[[Recipe], Path],
    tmp_path: Path,
) -> None:
    clip = make_clip(Recipe(frames=50)).as_uri()
    found = ask_ready(
        http, inputs=[clip], questions=["What is it?", "Why?"], sampling={"frames": 4}
    )
    assert (found["estimated"], found["reason"], found["frames"]) == (True, None, 4)
    assert found["prompt_tokens"] > 8
    (one,) = found["inputs"]
    assert (one["kind"], one["frames"], one["error"]) == ("video", 4, None)
    assert one["duration_s"] == pytest.approx(2, rel=0.05)
    assert (one["bytes"], found["bytes"]) == (0, 0), "a file of this machine"
    (tmp_path / "bad.mp4").write_bytes(b"<html>nothing</html>" * 99)
    bad, gone = (tmp_path / "bad.mp4").as_uri(), (tmp_path / "gone.mp4").as_uri()
    mixed = ask(http, inputs=[clip, bad, gone])
    codes = [one["error"] and one["error"]["code"] for one in mixed["inputs"]]
    assert codes == [None, "not_a_video", "source_not_found"]
    assert mixed["inputs"][1]["error"]["param"] == "inputs.1.url"
    assert (mixed["estimated"], mixed["frames"], mixed["bytes"]) == (True, None, None)
    _check_addresses(http, http_server)
    assert len(find_children()) == 1


def _check_addresses(http: httpx.Client, server: HttpServer) -> None:
    """Workers refuse these, and so does the process of estimates."""
    server.routes["/x.mp4"] = Route(b"secret")
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "169.254.169.254", "2130706433"):
        found = ask(http, inputs=[f"http://{host}:{server.server_port}/x.mp4"])
        assert found["inputs"][0]["error"]["code"] == "address_forbidden", host
    assert server.connections == 0


def test_a_request_that_a_submit_refuses_is_refused_in_the_same_way(
    connect: Connect,
) -> None:
    http = connect("submit", tenant="a")
    for body in (
        ASKED | {"inputs": []},
        ASKED | {"questions": [" "]},
        ASKED | {"tenant": "b"},
        ASKED | {"nonsense": 1},
        ASKED | {"inputs": ["s3://bucket/x.mp4"]},
        ASKED | {"inputs": ["file:///etc/passwd"]},
    ):
        submitted, validated = (http.post(path, json=body) for path in ("/v1/jobs", PATH))
        assert validated.status_code == submitted.status_code >= 400
        for name in ("code", "detail", "param"):
            assert validated.json()[name] == submitted.json()[name]
    broken = http.post(PATH, content=b"{", headers={"content-type": "application/json"})
    assert broken.status_code == 400
    assert not find_children()


def test_without_the_workers_package_the_answer_says_so(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videoqa.gateway.estimator.entry_points", lambda group: [])
    found = ask(connect("submit"))
    assert (found["estimated"], found["reason"], found["inputs"]) == (False, "no_probe", [])


def test_a_process_that_hangs_or_writes_rubbish_is_ended(
    connect: Connect, gateway: GatewayServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stands in for a process that a library has broken."""
    (tmp_path / "rubbish.py").write_text("print('{', flush=True); input()")
    (tmp_path / "hanging.py").write_text(
        f"print({json.dumps(json.dumps({'id': 0}))}, flush=True)\nimport time; time.sleep(600)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("videoqa.gateway.estimator.GRACE_S", 0.1)
    monkeypatch.setattr("videoqa.gateway.estimator.MOST_WAITING", 4)
    settings = gateway._app.state.resources.settings
    shorter = settings.model_copy(update={"gateway_validate_s": 1.0})
    monkeypatch.setattr(gateway._app.state.resources, "settings", shorter)
    http = connect("submit", "read")
    for module, reason in (("rubbish", "probe_failed"), ("hanging", "too_slow")):
        monkeypatch.setattr("videoqa.gateway.estimator._find_module", lambda module=module: module)
        assert (found := ask(http))["estimated"] is False
        assert found["reason"] == reason
        wait_until(lambda module=module: not find_children(module))
    with ThreadPoolExecutor(50) as pool:
        found_by_many = [pool.submit(ask, http) for _ in range(50)]
        answered = 0
        while not all(one.done() for one in found_by_many):
            assert http.get("/v1/queues").status_code == 200
            answered += 1
        reasons = Counter(one.result()["reason"] for one in found_by_many)
    assert reasons["too_busy"] > 0
    assert reasons["too_slow"] > 0
    assert answered > 1, "nobody else waits"
