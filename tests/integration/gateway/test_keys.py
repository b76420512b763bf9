"""API keys: what is refused, that a refusal tells nothing, and that no key is ever written anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
import redis
from support.processes import start, wait_until

from videoqa.errors import VideoQAError
from videoqa.gateway import GatewayServer
from videoqa.gateway.access.key_cache import CHECKED_S
from videoqa.gateway.access.keys import KeyStore, WrongKey, _check_digits
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

OURS = ("check", "parse_key", "_read", "_hash", "compare_digest", "_refuse_text", "parse", "hmget")
"""Functions of a check; how redis-py reads a reply depends on the number of its bytes."""


def record_calls(call: Callable[[], object]) -> list[str]:
    """Returns the names of all functions that a call enters and leaves, in order."""
    found: list[str] = []

    def note(frame: FrameType, event: str, arg: Any) -> None:
        found.append(f"{event} {arg.__name__ if event.startswith('c_') else frame.f_code.co_name}")

    sys.setprofile(note)
    try:
        call()
    except VideoQAError:
        pass
    finally:
        sys.setprofile(None)
    return found


def test_an_unknown_id_and_a_wrong_secret_take_the_same_path(keys: KeyStore) -> None:
    """Otherwise the time of a refusal would tell which ids there are."""
    first, second = (keys.create("x", ["read"]) for _ in range(2))
    mixed = f"vqa_{first.key.id}_{second.text.rpartition('_')[2][:43]}"
    unknown = f"vqa_{'0' * 12}_{second.text.rpartition('_')[2][:43]}"
    texts = [text + _check_digits("".join(text.split("_")[1:])) for text in (mixed, unknown)]
    for text in texts:  # connections are made, caches filled
        with pytest.raises(WrongKey):
            keys.check(text)

    paths = [
        [
            name
            for name in record_calls(lambda text=text: keys.check(text))
            if name.split()[1] in OURS
        ]
        for text in texts
    ]
    assert paths[0] == paths[1]
    assert "c_call compare_digest" in paths[0]
    assert "call parse" not in paths[0]


def test_a_key_that_is_revoked_is_refused_everywhere_in_time(
    gateway: GatewayServer, keys: KeyStore
) -> None:
    assert CHECKED_S <= 2
    made = keys.create("x", ["read"])
    with httpx.Client(base_url=gateway.url, headers={"x-api-key": made.text}) as http:
        assert http.get("/v1/jobs").status_code == 200
        keys.revoke(made.key.id)
        wait_until(lambda: http.get("/v1/jobs").status_code == 401)


def test_an_administrator_makes_rotates_and_revokes_keys(connect: Connect) -> None:
    http = connect("admin")
    asked = {"name": "web", "roles": ["read"], "tenant": "a", "rate": "9/s"}
    made = http.post("/v1/keys", json=asked).json()
    own = {"authorization": f"Bearer {made['text']}"}
    assert http.get("/v1/jobs", headers=own).status_code == 200
    listed = http.get("/v1/keys")
    assert [key["name"] for key in listed.json()["keys"]] == ["test", "web"]
    assert made["text"][17:] not in listed.text
    new = http.post(f"/v1/keys/{made['id']}/rotate", json={"overlap_s": 60}).json()
    assert new["overlap_until"] is not None
    for text in (made["text"], new["text"]):
        own = {"authorization": f"Bearer {text}"}
        assert http.get("/v1/jobs", headers=own).status_code == 200
    assert http.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert http.delete(f"/v1/keys/{made['id']}").json()["code"] == "key_not_found"
    entries = http.get("/v1/audit").json()["entries"]
    assert {"keys create", "keys rotate", "keys revoke"} <= {entry["what"] for entry in entries}
    admin_id = listed.json()["keys"][0]["id"]
    assert {e["who"] for e in entries if e["on"] == made["id"]} == {admin_id}
    for wrong in (
        {"who": "x"},
        {"id": "x"},
        {"roles": []},
        {"jobs_per_day": 1.5},
        {"name": "x" * 201},
    ):
        refused = http.post("/v1/keys", json=asked | wrong)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), wrong
    for body in ({"overlap_s": -1}, {"overlap_s": True}, {"overlap_s": 1e9}, {"x": 1}):
        assert http.post(f"/v1/keys/{admin_id}/rotate", json=body).status_code == 400


def test_an_old_secret_ends_with_its_overlap(keys: KeyStore) -> None:
    made = keys.create("x", ["read"])
    new = keys.rotate(made.key.id, overlap_s=1.5)
    assert keys.check(made.text).overlap_until is not None
    wait_until(lambda: is_refused(keys, made.text))
    assert keys.check(new.text).id == made.key.id


def is_refused(keys: KeyStore, text: str) -> bool:
    try:
        keys.check(text)
    except WrongKey:
        return True
    return False


@pytest.fixture
def process(settings: Settings, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A gateway in a process of its own: its address, and the file of all that it writes."""
    log = tmp_path / "log"
    environment = os.environ | {
        "VIDEOQA_REDIS_URL": settings.redis_url,
        "VIDEOQA_PREFIX": settings.prefix,
        "VIDEOQA_GATEWAY_PORT": "0",
    }
    command = [str(Path(sys.executable).parent / "videoqa"), "gateway"]
    with log.open("w") as out:
        running = start(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: "listens at" in log.read_text(), process=running)
        yield re.findall(r"http://[\d.:]+", log.read_text())[0], log
    finally:
        running.kill()
        running.wait(30)


def test_no_key_is_in_a_log_an_error_or_in_redis(
    process: tuple[str, Path], keys: KeyStore, redis_client: redis.Redis, settings: Settings
) -> None:
    url, log = process
    made = keys.create("x", ["admin"])
    secret = made.text.rpartition("_")[2]
    answers = []
    with httpx.Client(base_url=url) as http:
        right = {"authorization": f"Bearer {made.text}"}
        assert http.get("/v1/jobs", headers=right).status_code == 200
        in_query = http.get("/v1/jobs", params={"api_key": made.text, "key": made.text})
        assert in_query.status_code in (400, 401), "addresses are logged: a key in one is none"
        answers.append(in_query)
        for name in ("authorization", "x-api-key"):
            for text in (made.text + "x", made.text[:-1], f"Basic {made.text}", made.text.lower()):
                answers.append(http.get("/v1/jobs", headers={name: text}))
        answers.append(http.get(f"/v1/{made.text}", headers=right))
        answers.append(http.post("/v1/jobs/x/cancel", headers=right))
        redis_client.set(f"{settings.prefix}:audit", "no stream")
        answers.append(http.post("/v1/jobs/x/cancel", headers=right))
    assert {answer.status_code for answer in answers} >= {401, 404, 500}
    shown = [str(a.headers) + a.text for a in answers if made.text not in str(a.url.path)]
    assert not [text for text in shown if secret in text]
    assert secret not in log.read_text()
    stored = "".join(
        str(redis_client.dump(key)) for key in redis_client.scan_iter(f"{settings.prefix}:*")
    )
    assert secret not in stored
