"""Uploads in parts: OpenAI's own client, a folder and a real S3, and connections that are cut."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from support.hanging_files import hanging_reads
from support.processes import wait_until
from support.uploads import MIB, code_of, list_left, usage

from videoqa.gateway import GatewayServer, GatewaySettings
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.files import uploads
from videoqa.gateway.files.files import Files
from videoqa.gateway.http.problems import HttpError
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

BODY = Random(4).randbytes(12 * MIB + 5)
ASKED: dict[str, Any] = {
    "bytes": len(BODY), "filename": "a.mp4", "mime_type": "video/mp4", "purpose": "user_data",
}  # fmt: skip
only_folder = pytest.mark.parametrize("place", ["folder"], indirect=True)


@pytest.fixture
def gateway_settings(settings: Settings, place: dict[str, Any]) -> GatewaySettings:
    return GatewaySettings(
        **{**settings.model_dump(), **place},
        gateway_port=0,
        gateway_drain_s=1,
        gateway_files_tenant_bytes=40 * MIB,
    )


@pytest.fixture
def http(connect: Connect) -> httpx.Client:
    return connect("submit", "read", tenant="a")


@pytest.fixture
def ai(gateway: GatewayServer, keys: KeyStore) -> Iterator[OpenAI]:
    key = keys.create("ai", ["submit", "read"], tenant="a").text
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, timeout=60) as found:
        yield found


def create(http: httpx.Client, **fields: Any) -> str:
    answer = http.post("/v1/uploads", json=ASKED | fields)
    assert answer.status_code == 200, answer.text
    upload_id: str = answer.json()["id"]
    return upload_id


def add(http: httpx.Client, upload_id: str, data: bytes) -> str:
    answer = http.post(f"/v1/uploads/{upload_id}/parts", files={"data": ("upload", data)})
    assert answer.status_code == 200, answer.text
    part_id: str = answer.json()["id"]
    return part_id


def complete(http: httpx.Client, upload_id: str, *parts: str, **fields: Any) -> httpx.Response:
    return http.post(f"/v1/uploads/{upload_id}/complete", json={"part_ids": parts, **fields})


@pytest.mark.parametrize("part_bytes", [5 * MIB, MIB + 1], ids=["copied", "short"])
def test_openais_client_uploads_in_parts(
    ai: OpenAI, files: Files, tmp_path: Path, part_bytes: int
) -> None:
    """S3 joins parts of 5 MiB by itself; shorter ones pass through the gateway once more."""
    (tmp_path / "b.mp4").write_bytes(BODY)
    done = ai.uploads.upload_file_chunked(
        file=tmp_path / "b.mp4",
        mime_type="video/mp4",
        purpose="user_data",
        part_size=part_bytes,
        md5=hashlib.md5(BODY).hexdigest(),
    )
    assert done.status == "completed"
    assert done.file is not None
    assert (done.file.filename, done.file.bytes) == ("b.mp4", len(BODY))
    assert ai.files.content(done.file.id).read() == BODY
    assert [each.id for each in ai.files.list()] == [done.file.id]
    assert usage(files)["tenant:a"] == len(BODY)
    record = files.index.find(done.file.id).record  # type: ignore[union-attr]
    assert record.name == "content.mp4"
    ai.files.delete(done.file.id)
    assert (list_left(files), usage(files)) == ([], {})


def test_an_upload_that_is_cut_at_90_percent_goes_on_there(
    gateway: GatewayServer, http: httpx.Client, files: Files
) -> None:
    step = len(BODY) // 10
    pieces = [BODY[n : n + step] for n in range(0, len(BODY), step)]
    upload_id = create(http)
    ids = [add(http, upload_id, piece) for piece in pieces[:9]]
    head = (
        f"POST /v1/uploads/{upload_id}/parts HTTP/1.1\r\nHost: a\r\nContent-Length: {step}\r\n"
        f"Authorization: {http.headers['authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
        '--B\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\n'
    )
    with socket.create_connection(gateway.socket.getsockname(), timeout=10) as link:
        link.sendall(head.encode() + pieces[9][: step // 2])
    known = http.get(f"/v1/uploads/{upload_id}").json()
    assert [each["id"] for each in known["parts"]] == ids
    assert sum(each["bytes"] for each in known["parts"]) == 9 * step
    early = complete(http, upload_id, *ids)
    assert code_of(early) == (400, "invalid_request")
    ids += [add(http, upload_id, piece) for piece in pieces[9:]]
    done = complete(http, upload_id, *ids)
    file_id = done.json()["file"]["id"]
    assert http.get(f"/v1/files/{file_id}/content").content == BODY
    again = complete(http, upload_id, *ids)  # its first answer may have been lost
    assert again.json() == done.json()
    assert usage(files)["tenant:a"] == len(BODY)


@only_folder
def test_the_order_is_that_of_the_end_and_a_part_may_come_twice(
    http: httpx.Client, files: Files
) -> None:
    upload_id = create(http)
    half = len(BODY) // 2
    found: dict[str, str] = {}
    threads = [
        threading.Thread(target=lambda n=name, d=data: found.update({n: add(http, upload_id, d)}))
        for name, data in (("b", BODY[half:]), ("a", BODY[:half]), ("again", BODY[:half]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert usage(files)["tenant:a"] == len(BODY) + half
    done = complete(http, upload_id, found["again"], found["b"])
    assert http.get(f"/v1/files/{done.json()['file']['id']}/content").content == BODY
    assert usage(files)["tenant:a"] == len(BODY)
    folder = next(Path(files.settings.gateway_files or "").glob("*/file-*"))
    assert [path.name for path in folder.iterdir()] == ["content.mp4"]


@only_folder
def test_an_end_that_does_not_fit_is_refused_and_may_be_mended(
    http: httpx.Client, files: Files
) -> None:
    upload_id = create(http, bytes=6)
    a, b = add(http, upload_id, b"abc"), add(http, upload_id, b"def")
    for parts, fields, code in (
        ([a], {}, "invalid_request"), ([a, a], {}, "invalid_request"), ([], {}, "invalid_request"),
        ([a, "part_x"], {}, "part_not_found"), ([a, b], {"md5": "0" * 32}, "invalid_request"),
        ([a, b], {"md5": 5}, "invalid_request"), ([a, b], {"sha": "0"}, "invalid_request"),
    ):  # fmt: skip
        assert code_of(complete(http, upload_id, *parts, **fields)) == (400, code), (parts, fields)  # type: ignore[arg-type]
    wrong = http.post(f"/v1/uploads/{upload_id}/complete", json={"part_ids": "a"})
    assert code_of(wrong) == (400, "invalid_request")
    assert complete(http, upload_id, a, b, md5=hashlib.md5(b"abcdef").hexdigest()).is_success
    for answer in (
        http.post(f"/v1/uploads/{upload_id}/parts", files={"data": b"a"}),
        http.post(f"/v1/uploads/{upload_id}/cancel"),
    ):
        assert code_of(answer) == (400, "upload_ended")


@only_folder
def test_two_ends_at_once_make_one_file(http: httpx.Client, files: Files) -> None:
    upload_id = create(http, bytes=3)
    part = add(http, upload_id, b"abc")
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(complete(http, upload_id, part)))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = {answer.status_code for answer in answers}
    assert 200 in statuses
    assert statuses <= {200, 409}
    files_made = {answer.json()["file"]["id"] for answer in answers if answer.is_success}
    assert len(files_made) == 1
    assert http.get(f"/v1/files/{files_made.pop()}/content").content == b"abc"


@only_folder
def test_what_an_upload_may_not_be_is_refused(http: httpx.Client, files: Files) -> None:
    for fields in (
        {"bytes": 0}, {"bytes": -1}, {"bytes": True}, {"bytes": "9"}, {"bytes": 1.5},
        {"filename": "../a"}, {"filename": 5}, {"filename": "a\0"}, {"purpose": "fine-tune"}, {"purpose": None},
        {"expires_after": 5}, {"expires_after": {"anchor": "created_at"}}, {"tenant": "b"},
        {"expires_after": {"anchor": "now", "seconds": 3600}}, {"mime_type": 5},
        {"expires_after": {"anchor": "created_at", "seconds": [3600]}},
    ):  # fmt: skip
        answer = http.post("/v1/uploads", json=ASKED | fields)
        assert code_of(answer) == (400, "invalid_request"), fields
    answer = http.post("/v1/uploads", json=ASKED | {"bytes": 10**18})
    assert code_of(answer) == (413, "file_too_large")
    answer = http.post("/v1/uploads", json=ASKED | {"bytes": 41 * MIB})
    assert code_of(answer) == (507, "file_quota_reached")
    upload_id = create(http)
    path = f"/v1/uploads/{upload_id}/parts"
    large = http.post(path, files={"data": ("a", bytes(uploads.MOST_PART_BYTES + 1))})
    assert code_of(large) == (413, "part_too_large")
    for files_sent in ({"file": ("a", b"a")}, [("data", ("a", b"a")), ("data", ("b", b"b"))]):
        assert code_of(http.post(path, files=files_sent)) == (400, "invalid_request")  # type: ignore[arg-type]
    assert code_of(http.post(path, content=b"a")) == (415, "unsupported_media_type")
    assert http.get(f"/v1/uploads/{upload_id}").json()["parts"] == []
    for folder in Path(files.settings.gateway_files or "").glob("*/file-*"):
        assert list(folder.iterdir()) == []


def test_a_cancelled_upload_leaves_nothing(ai: OpenAI, files: Files) -> None:
    upload = ai.uploads.create(**ASKED)
    ai.uploads.parts.create(upload.id, data=BODY)
    assert usage(files)["tenant:a"] == len(BODY)
    assert ai.uploads.cancel(upload.id).status == "cancelled"
    assert (list_left(files), usage(files)) == ([], {})
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        ai.uploads.parts.create(upload.id, data=BODY)
    assert list_left(files) == []


def test_an_upload_ends_after_an_hour(
    http: httpx.Client, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = create(http)
    part = add(http, upload_id, BODY)
    files.sweep(time.time() + uploads.LIVES_S)
    assert len(list_left(files)) == 1
    files.sweep(time.time() + uploads.LIVES_S + uploads.JOINED_S + 1)
    assert (list_left(files), usage(files)) == ([], {})
    later_s = time.time() + uploads.LIVES_S + 1
    monkeypatch.setattr(uploads.time, "time", lambda: later_s)
    assert http.get(f"/v1/uploads/{upload_id}").json()["status"] == "expired"
    assert code_of(complete(http, upload_id, part)) == (410, "upload_expired")
    sent = http.post(f"/v1/uploads/{upload_id}/parts", files={"data": ("a", b"a")})
    assert code_of(sent) == (410, "upload_expired")


@only_folder
def test_a_part_that_breaks_off_leaves_nothing(
    gateway: GatewayServer, http: httpx.Client, files: Files
) -> None:
    upload_id = create(http)
    head = (
        f"POST /v1/uploads/{upload_id}/parts HTTP/1.1\r\nHost: a\r\nContent-Length: {9 * MIB}\r\n"
        f"Authorization: {http.headers['authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
        '--B\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\n'
    )
    root = Path(files.settings.gateway_files or "")
    with socket.create_connection(gateway.socket.getsockname(), timeout=10) as link:
        link.sendall(head.encode() + bytes(4 * MIB))
        wait_until(lambda: list(root.glob("*/file-*/.part_*")))
    wait_until(lambda: not list(root.glob("*/file-*/*")))
    assert http.get(f"/v1/uploads/{upload_id}").json()["parts"] == []


@only_folder
def test_a_store_that_hangs_holds_up_no_look_at_files(http: httpx.Client, files: Files) -> None:
    file_id = http.post(
        "/v1/files", files={"file": ("a.mp4", b"abc")}, data={"purpose": "vision"}
    ).json()["id"]
    address = f"/v1/files/{file_id}"
    path = next(Path(files.settings.gateway_files or "").glob(f"*/{file_id}/*"))
    with hanging_reads(path, http, f"{address}/content"):
        assert http.get(address, timeout=5).json()["bytes"] == 3
        assert http.get("/v1/files", timeout=5).is_success


@only_folder
def test_an_end_sees_the_one_that_came_before_it(
    http: httpx.Client, files: Files, gateway: GatewayServer
) -> None:
    """A call reads the upload, and another one ends it before the first has the lock."""
    ends: uploads.Uploads = gateway._app.state.resources.uploads
    done, gone = create(http, bytes=3), create(http, bytes=3)
    parts = {upload_id: add(http, upload_id, b"abc") for upload_id in (done, gone)}
    seen = {upload_id: asyncio.run(ends.get(upload_id, "a")) for upload_id in parts}
    file_id = complete(http, done, parts[done]).json()["file"]["id"]
    with pytest.raises(HttpError, match="completed"):
        asyncio.run(ends.cancel(seen[done]))
    assert http.get(f"/v1/files/{file_id}/content").content == b"abc"
    assert http.post(f"/v1/uploads/{gone}/cancel").is_success
    with pytest.raises(HttpError, match="cancelled"):
        asyncio.run(ends.complete(seen[gone], [parts[gone]]))


@only_folder
def test_a_part_that_was_refused_does_not_count(http: httpx.Client) -> None:
    upload_id = create(http, bytes=6)
    create(http, bytes=39 * MIB)
    path = f"/v1/uploads/{upload_id}/parts"
    refused = http.post(path, files={"data": ("a", bytes(2 * MIB))})
    assert code_of(refused) == (507, "file_quota_reached")
    part = add(http, upload_id, b"abcdef")
    assert complete(http, upload_id, part).is_success
