"""Uploaded files: a real gateway with a folder or a real S3 as its place, and OpenAI's own client."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import psutil
import pytest
import redis
from openai import OpenAI
from support.processes import wait_until
from support.receiver import receiving
from support.uploads import MIB, code_of, list_left, usage
from support.worker import begin, fail

from videoqa.client import Client
from videoqa.contract import Failure
from videoqa.gateway import GatewayServer, GatewaySettings
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.files.files import MOST_OF_TENANT, Files
from videoqa.gateway.files.folder_place import _FileWriter
from videoqa.jobs import Ledger
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

BODY = Random(3).randbytes(3 * MIB + 17)
BOUNDARY = {"content-type": "multipart/form-data; boundary=B"}
UNKNOWN = "file-" + "0" * 24


@pytest.fixture
def gateway_settings(settings: Settings, place: dict[str, Any]) -> GatewaySettings:
    return GatewaySettings(
        **{**settings.model_dump(), **place},
        gateway_port=0,
        gateway_drain_s=1,
        max_source_bytes=400 * MIB,
        gateway_files_bytes=600 * MIB,
        gateway_files_tenant_bytes=500 * MIB,
        webhook_networks="127.0.0.0/8",
    )


only_folder = pytest.mark.parametrize("place", ["folder"], indirect=True)


@pytest.fixture
def http(connect: Connect) -> httpx.Client:
    return connect("submit", "read", tenant="a")


@pytest.fixture
def ai(gateway: GatewayServer, keys: KeyStore) -> Iterator[OpenAI]:
    key = keys.create("ai", ["submit", "read"], tenant="a").text
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, timeout=60) as found:
        yield found


def upload(http: httpx.Client, data: bytes = BODY, name: str = "a.mp4", **fields: str) -> Any:
    answer = http.post(
        "/v1/files", files={"file": (name, data)}, data={"purpose": "user_data", **fields}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def part(name: str, value: bytes, filename: str | None = None, *, extra: str = "") -> bytes:
    after = "" if filename is None else f'; filename="{filename}"'
    head = f'--B\r\nContent-Disposition: form-data; name="{name}"{after}\r\n{extra}\r\n'
    return head.encode() + value + b"\r\n"


def send(http: httpx.Client, *parts: bytes, end: bytes = b"--B--\r\n") -> httpx.Response:
    return http.post("/v1/files", content=b"".join(parts) + end, headers=BOUNDARY)


def test_openais_client_uploads_lists_reads_and_deletes(ai: OpenAI, files: Files) -> None:
    made = [ai.files.create(file=(f"{n}.mp4", BODY[n:]), purpose="user_data") for n in range(5)]
    jsonl = ai.files.create(
        file=("rows.jsonl", b"{}\n"),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (made[2].filename, made[2].bytes, made[2].purpose) == (
        "2.mp4",
        len(BODY) - 2,
        "user_data",
    )
    assert made[2].status == "processed"
    assert jsonl.expires_at == jsonl.created_at + 3600
    assert ai.files.retrieve(made[1].id) == made[1]
    ids = [each.id for each in made]
    assert [each.id for each in ai.files.list()] == [jsonl.id, *reversed(ids)]
    assert [each.id for each in ai.files.list(order="asc", limit=2, purpose="user_data")] == ids
    assert [each.id for each in ai.files.list(purpose="batch")] == [jsonl.id]
    assert ai.files.content(made[3].id).read() == BODY[3:]
    assert ai.files.content(jsonl.id).read() == b"{}\n"
    assert ai.files.wait_for_processing(jsonl.id).id == jsonl.id
    gone = ai.files.delete(made[3].id)
    assert (gone.id, gone.deleted, gone.object) == (made[3].id, True, "file")
    with pytest.raises(openai.NotFoundError) as caught:
        ai.files.retrieve(made[3].id)
    assert caught.value.code == "file_not_found"
    # A page behind a file that was deleted since goes on where it stood.
    assert [each.id for each in ai.files.list(order="asc", after=made[3].id)] == [ids[4], jsonl.id]
    assert made[3].id not in list_left(files)
    assert usage(files)["tenant:a"] == sum(len(BODY) - n for n in (0, 1, 2, 4)) + 3


def test_a_file_of_200_mb_passes_through_in_constant_memory(
    http: httpx.Client, tmp_path: Path, gateway: GatewayServer
) -> None:
    size = 200 * MIB
    with open(tmp_path / "large.mp4", "wb") as out:
        out.truncate(size)
        out.seek(size - 4)
        out.write(b"last")
    before = psutil.Process().memory_info().rss
    most, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most.append(psutil.Process().memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with open(tmp_path / "large.mp4", "rb") as file:
            answer = http.post("/v1/files", files={"file": file}, data={"purpose": "user_data"})
        assert answer.json()["bytes"] == size
        read = 0
        with http.stream("GET", f"/v1/files/{answer.json()['id']}/content") as content:
            for data in content.iter_bytes(MIB):
                read += len(data)
        assert (read, data[-4:]) == (size, b"last")
    finally:
        done.set()
        thread.join()
    assert max(most) - before < 100 * MIB


@only_folder
def test_fields_come_in_any_order_and_names_in_any_spelling(http: httpx.Client) -> None:
    file = part("file", b"abc", "a b\u00e9.mp4")
    for parts in (
        (file, part("purpose", b"vision")),
        (part("purpose", b"vision"), file),
        (
            part("expires_after[seconds]", b"7200"),
            file,
            part("purpose", b"vision"),
            part("expires_after[anchor]", b"created_at"),
        ),
    ):
        answer = send(http, *parts)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["filename"], found["purpose"], found["bytes"]) == (
            "a b\u00e9.mp4",
            "vision",
            3,
        )
    assert found["expires_at"] == found["created_at"] + 7200
    old = part("file", b"abc", None).replace(
        b'name="file"', b"name=\"file\"; filename*=utf-8''a%C3%A9.mp4"
    )
    assert send(http, old, part("purpose", b"vision")).json()["filename"] == "a\u00e9.mp4"
    # Byte by byte, as a slow network may bring it.
    whole = b"".join([file, part("purpose", b"vision"), b"--B--\r\n"])
    pieces = (whole[n : n + 1] for n in range(len(whole)))
    slow = http.post("/v1/files", content=pieces, headers=BOUNDARY)
    assert slow.json()["bytes"] == 3
    assert http.get(f"/v1/files/{slow.json()['id']}/content").content == b"abc"


@only_folder
def test_the_bytes_alone_are_a_file_too(http: httpx.Client) -> None:
    """They come as `curl --data-binary @a.mp4 -H 'Content-Type: video/mp4'` and `curl -T -` send them."""
    headers = {"content-type": "video/mp4"}
    path = "/v1/files?filename=a.mp4&purpose=vision"
    for content in (BODY, iter([BODY[:5], BODY[5:]])):
        found = http.post(path, content=content, headers=headers).json()
        assert (found["filename"], found["bytes"]) == ("a.mp4", len(BODY))
        assert http.get(f"/v1/files/{found['id']}/content").content == BODY
    form = http.post("/v1/files", data={"a": "b"})
    assert code_of(form) == (415, "unsupported_media_type")
    wrong = http.post("/v1/files?filename=../a", content=b"a", headers=headers)
    assert code_of(wrong) == (400, "invalid_request")


FILE, PURPOSE = part("file", b"abc", "a.mp4"), part("purpose", b"vision")
BAD_FORMS: dict[str, tuple[bytes, ...]] = {
    "two files": (FILE, FILE, PURPOSE),
    "two purposes": (FILE, PURPOSE, part("purpose", b"batch")),
    "no file": (PURPOSE,),
    "no purpose": (FILE,),
    "a wrong purpose": (FILE, part("purpose", b"fine-tune")),
    "the gateway's purpose": (FILE, part("purpose", b"batch_output")),
    "an unknown field": (FILE, PURPOSE, part("tenant", b"b")),
    "a path": (part("file", b"abc", "../name"), PURPOSE),
    "an absolute path": (part("file", b"abc", "/etc/passwd"), PURPOSE),
    "a path of Windows": (part("file", b"abc", "a\\\\b"), PURPOSE),
    "a NUL": (part("file", b"abc", "a\0b"), PURPOSE),
    "an escape": (part("file", b"abc", "a\x1bb"), PURPOSE),
    "a text that turns around": (part("file", b"abc", "a\u202eb"), PURPOSE),
    "no name": (part("file", b"abc"), PURPOSE),
    "an empty name": (part("file", b"abc", ""), PURPOSE),
    "a long name": (part("file", b"abc", "a" * 256), PURPOSE),
    "two names": (part("file", b"abc", 'a"; filename="b'), PURPOSE),
    "both kinds of name": (part("file", b"abc", "a\"; filename*=utf-8''b; x=\""), PURPOSE),
    "two dispositions": (
        part("file", b"abc", "a", extra='content-disposition: form-data; name="purpose"\r\n'),
        PURPOSE,
    ),
    "base64": (part("file", b"YWJj", "a", extra="Content-Transfer-Encoding: base64\r\n"), PURPOSE),
    "an attachment": (FILE.replace(b"form-data", b"attachment"), PURPOSE),
    "no UTF-8": (FILE.replace(b"a.mp4", b"a\xff.mp4"), PURPOSE),
    "many headers": (part("file", b"abc", "a", extra="".join(f"A{n}: b\r\n" for n in range(99))),),
    "a large header": (part("file", b"abc", "a", extra=f"A: {'b' * 100_000}\r\n"), PURPOSE),
    "a long field": (FILE, part("purpose", b"vision" * 200)),
    "half of a lifetime": (FILE, PURPOSE, part("expires_after[seconds]", b"7200")),
    "a short lifetime": (
        FILE, PURPOSE, part("expires_after[seconds]", b"59"),
        part("expires_after[anchor]", b"created_at"),
    ),
    "no boundary in it": (b"abc",),
    "10,000 parts": tuple(part(f"f{n}", b"1") for n in range(10_000)),
    "10,000 fields of one name": (FILE, *(PURPOSE for n in range(10_000))),
    "a header without an end": (b"--B\r\nContent-Disposition: form-data",),
}  # fmt: skip


@only_folder
def test_a_form_that_is_not_one_file_is_refused_and_leaves_nothing(
    http: httpx.Client, files: Files
) -> None:
    for name, parts in BAD_FORMS.items():
        begun_s = time.process_time()  # the gateway is in this process
        answer = send(http, *parts)
        assert code_of(answer) == (400, "invalid_request"), f"{name}: {answer.text}"
        assert len(answer.text) < 1500, name
        assert time.process_time() - begun_s < 5, name
    cut = send(http, FILE, PURPOSE, end=b"")
    assert code_of(cut) == (400, "invalid_request")
    for kind in (
        "",
        "; boundary=",
        f"; boundary={'a' * 71}",
        '; boundary="a b"',
        "; boundary=a; boundary=b",
    ):
        answer = http.post(
            "/v1/files",
            content=FILE + PURPOSE,
            headers={"content-type": f"multipart/form-data{kind}"},
        )
        assert code_of(answer) == (400, "invalid_request"), kind
    assert (list_left(files), usage(files)) == ([], {})
    assert http.get("/v1/files").json()["data"] == []


def test_a_file_that_is_too_large_or_over_a_quota_is_refused(
    http: httpx.Client, connect: Connect, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the body is read where its length is known; on the way where it is not."""
    small = files.settings.model_copy(
        update={
            "max_source_bytes": 2 * MIB,
            "gateway_files_tenant_bytes": 3 * MIB,
            "gateway_files_bytes": 4 * MIB,
        }
    )
    monkeypatch.setattr(files, "settings", small)
    headers = {"content-type": "video/mp4"}
    path = "/v1/files?filename=a.mp4"

    def pieces(length: int) -> Iterator[bytes]:
        return (bytes(MIB // 4) for _ in range(length // (MIB // 4)))

    for content in (bytes(3 * MIB), pieces(3 * MIB)):
        answer = http.post(path, content=content, headers=headers)
        assert code_of(answer) == (413, "file_too_large")
    assert (list_left(files), usage(files)) == ([], {})
    kept = http.post(path, content=pieces(2 * MIB), headers=headers).json()["id"]
    for content in (bytes(2 * MIB), pieces(2 * MIB)):
        answer = http.post(path, content=content, headers=headers)
        assert code_of(answer) == (507, "file_quota_reached")
        assert answer.headers["x-should-retry"] == "false"
    other = connect("submit", tenant="b")
    assert other.post(path, content=bytes(2 * MIB), headers=headers).status_code == 200
    answer = other.post(path, content=bytes(MIB), headers=headers)
    assert code_of(answer) == (507, "file_quota_reached")
    assert usage(files) == {"all": 4 * MIB, "tenant:a": 2 * MIB, "tenant:b": 2 * MIB}
    http.delete(f"/v1/files/{kept}")
    assert usage(files) == {"all": 2 * MIB, "tenant:b": 2 * MIB}
    assert http.post(path, content=bytes(2 * MIB), headers=headers).status_code == 200


@only_folder
def test_a_full_disk_is_told_and_leaves_nothing(
    http: httpx.Client, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: _FileWriter, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_FileWriter, "write", fail)  # a real full disk needs a root's mount
    answer = http.post("/v1/files", files={"file": ("a.mp4", BODY)}, data={"purpose": "vision"})
    assert code_of(answer) == (507, "storage_full")
    assert (list_left(files), usage(files)) == ([], {})


def test_nobody_sends_a_file_without_the_right_to(gateway: GatewayServer, connect: Connect) -> None:
    """The answer comes before the body: a caller that asks first never sends it."""
    head = (
        "POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Type: video/mp4\r\nContent-Length: 1000000000\r\n"
        "Expect: 100-continue\r\n"
    )
    reader = connect("read", tenant="a")
    for key, status in ((None, b"401"), (reader.headers["authorization"], b"403")):
        with socket.create_connection(gateway.socket.getsockname(), timeout=10) as link:
            link.sendall((head + (f"Authorization: {key}\r\n" if key else "") + "\r\n").encode())
            assert link.recv(4000).split()[1] == status
    # Without asking: whoever is still sending gets the answer too, and no reset connection.
    for http, expected in ((connect(), 401), (reader, 403)):
        answer = http.post(
            "/v1/files?filename=a", content=bytes(30 * MIB), headers={"content-type": "video/mp4"}
        )
        assert answer.status_code == expected


@pytest.mark.parametrize("how", ["hangs up", "false length"])
def test_an_upload_that_breaks_off_leaves_nothing(
    how: str, gateway: GatewayServer, http: httpx.Client, files: Files
) -> None:
    head = (
        "POST /v1/files?filename=a.mp4 HTTP/1.1\r\nHost: a\r\nContent-Type: video/mp4\r\n"
        f"Content-Length: {40 * MIB}\r\nAuthorization: {http.headers['authorization']}\r\n\r\n"
    )
    with socket.create_connection(gateway.socket.getsockname(), timeout=10) as link:
        link.sendall(head.encode() + bytes(20 * MIB))
        wait_until(lambda: files._place.base.startswith("s3") or list_left(files))  # type: ignore[union-attr]
        assert usage(files) == {"all": 40 * MIB, "tenant:a": 40 * MIB}
        if how == "false length":
            link.shutdown(socket.SHUT_WR)
            link.settimeout(30)
            link.recv(100)
    wait_until(lambda: usage(files) == {} and not list_left(files))
    assert http.get("/v1/files").json()["data"] == []


def test_content_is_safe_and_has_ranges(http: httpx.Client) -> None:
    made = upload(http, name="a 'b';\u00e9.html")
    path = f"/v1/files/{made['id']}/content"
    answer = http.get(path)
    assert answer.content == BODY
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    shown = answer.headers["content-disposition"]
    assert shown.startswith("attachment; ")
    assert shown.endswith("filename*=UTF-8''a%20%27b%27%3B%C3%A9.html")
    tag = answer.headers["etag"]
    assert http.get(path, headers={"if-none-match": tag}).status_code == 304
    size = len(BODY)
    for asked, start, end in (
        ("bytes=0-9", 0, 10), ("bytes=5-", 5, size), ("bytes=-7", size - 7, size),
        (f"bytes=3-{size * 9}", 3, size), (f"bytes=-{size * 9}", 0, size),
    ):  # fmt: skip
        answer = http.get(path, headers={"range": asked})
        assert (answer.status_code, answer.content) == (206, BODY[start:end]), asked
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    for asked in (
        "bytes=9-3",
        "bytes=0-1,5-6",
        "lines=1-2",
        "bytes=-",
        "bytes=a-b",
        "bytes=" + "0-1," * 9999,
    ):
        answer = http.get(path, headers={"range": asked})
        assert (answer.status_code, len(answer.content)) == (200, size), asked[:50]
    for asked in (f"bytes={size}-", "bytes=-0"):
        answer = http.get(path, headers={"range": asked})
        assert code_of(answer) == (416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{size}"
    stale = http.get(path, headers={"range": "bytes=0-9", "if-range": '"other"'})
    assert stale.status_code == 200


@only_folder
def test_lists_refuse_what_is_no_cursor_and_no_limit(http: httpx.Client) -> None:
    upload(http)
    for query in (
        "limit=0",
        "limit=10001",
        "limit=a",
        "after=x",
        "after=%00",
        "purpose=x",
        "order=x",
    ):
        answer = http.get(f"/v1/files?{query}")
        assert code_of(answer) == (400, "invalid_request"), query
    behind = http.get(f"/v1/files?after={UNKNOWN}").json()
    assert (behind["data"], behind["has_more"]) == ([], False)


@only_folder
def test_a_list_of_many_files_ends(http: httpx.Client, files: Files) -> None:
    """Files of one millisecond, too, each come once; `has_more` is right on each page."""
    ids = [upload(http, b"a")["id"] for _ in range(7)]
    record = files.index.find(ids[0]).record  # type: ignore[union-attr]
    twins = [record.model_copy(update={"id": f"{ids[0][:13]}{n:016d}"}) for n in range(6)]
    for twin in twins:
        files.index.change(twin, None, "ready", charge=0, due_s=None, most=9, most_of_tenant=9)
    expected = sorted([*ids, *(twin.id for twin in twins)])
    for order in ("asc", "desc"):
        found: list[str] = []
        more = True
        while more:
            after = f"&after={found[-1]}" if found else ""
            page = http.get(f"/v1/files?limit=2&order={order}{after}").json()
            found += [each["id"] for each in page["data"]]
            more = page["has_more"]
            assert len(page["data"]) == 2 or not more
        assert found == (expected if order == "asc" else expected[::-1])


def test_a_file_ends_after_its_time(http: httpx.Client, connect: Connect, files: Files) -> None:
    hour = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    made, used, kept = upload(http, **hour), upload(http, **hour), upload(http)
    asked = {"inputs": [used["id"]], "questions": ["What?"]}
    job = http.post("/v1/jobs", json=asked).json()["id"]
    now = time.time()
    files.sweep(now)
    assert len(list_left(files)) == 3
    files.sweep(now + 3601)
    # The time of the other one is over as well, and a job still needs its bytes.
    assert sorted(list_left(files)) == sorted([used["id"], kept["id"]])
    for path in (f"/v1/files/{made['id']}", f"/v1/files/{used['id']}/content"):
        assert code_of(http.get(path)) == (410, "file_expired")
        assert code_of(connect("read", tenant="b").get(path)) == (404, "file_not_found")
    assert [each["id"] for each in http.get("/v1/files").json()["data"]] == [kept["id"]]
    http.post(f"/v1/jobs/{job}/cancel")
    files.sweep(now + 3800)
    assert list_left(files) == [kept["id"]]
    assert usage(files) == {"all": len(BODY), "tenant:a": len(BODY)}


def test_deleting_the_file_of_a_job_does_not_break_the_job(
    http: httpx.Client, files: Files, client: Client
) -> None:
    made = upload(http)
    asked = {"inputs": [made["id"]], "questions": ["What?"]}
    job = http.post("/v1/jobs", json=asked).json()["id"]
    assert http.delete(f"/v1/files/{made['id']}").json()["deleted"] is True
    assert code_of(http.get(f"/v1/files/{made['id']}")) == (404, "file_not_found")
    assert http.post("/v1/jobs", json=asked).json()["code"] == "file_not_found"
    files.sweep(time.time() + 120)
    assert list_left(files) == [made["id"]]
    client.cancel(job)
    files.sweep(time.time() + 240)
    assert (list_left(files), usage(files)) == ([], {})


@only_folder
def test_a_job_that_is_tried_again_keeps_its_file(
    http: httpx.Client, files: Files, ledger: Ledger
) -> None:
    made = upload(http)["id"]
    job = http.post("/v1/jobs", json={"inputs": [made], "questions": ["What?"]}).json()["id"]
    assert fail(ledger) == job
    assert not files.index.is_used(made, time.time() + 120)
    assert http.post(f"/v1/jobs/{job}/retry").status_code == 202
    http.delete(f"/v1/files/{made}")
    files.sweep(time.time() + 120)
    assert list_left(files) == [made]


@only_folder
def test_a_webhook_names_no_storage(
    http: httpx.Client, files: Files, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = upload(http)["id"]
    url = f"{files.place.base}{made}/content.mp4"
    with receiving() as receiver:
        asked = {"inputs": [made], "questions": ["What?"], "webhook": receiver.url}
        assert http.post("/v1/jobs", json=asked).status_code == 202
        claim = begin(ledger)
        failure = Failure(code="source_denied", message=f"{url}: may not be read", attempt=1)
        assert ledger.fail(claim.job_id, claim.token, failure, delay_s=0) == "failed"
        wait_until(lambda: receiver.got)
        event = receiver.got[0].event
    assert event["data"]["failure"]["message"] == f"{made}: may not be read"


def test_the_sweep_finds_what_dead_gateways_left(
    http: httpx.Client, files: Files, redis_client: redis.Redis
) -> None:
    kept = upload(http)["id"]
    lost = upload(http)["id"]
    redis_client.delete(files.index._file(lost))
    writer = files.place.open("file-" + "1" * 24, "content.mp4")
    for _ in range(3):
        writer.write(bytes(files.place.piece_bytes))
    assert files.sweep_orphans(time.time()) == 0
    assert files.sweep_orphans(time.time() + 90_000) == 2
    assert list_left(files) == [kept]


@only_folder
def test_a_foreign_file_is_an_unknown_one(http: httpx.Client, connect: Connect) -> None:
    made = upload(http)["id"]
    other = connect("submit", "read", tenant="b")
    for method, path in (
        ("GET", "/v1/files/ID"), ("GET", "/v1/files/ID/content"), ("DELETE", "/v1/files/ID"),
    ):  # fmt: skip
        foreign = other.request(method, path.replace("ID", made))
        unknown = other.request(method, path.replace("ID", UNKNOWN))
        assert code_of(foreign) == code_of(unknown) == (404, "file_not_found")
        assert foreign.text.replace(made, UNKNOWN) == unknown.text
    assert other.get("/v1/files").json()["data"] == []
    for path in ("/v1/files/..%2fa", "/v1/files/%00", "/v1/files/" + "a" * 9000):
        assert http.get(path).status_code == 404
    asked = {"inputs": [made], "questions": ["What?"]}
    answer = other.post("/v1/jobs", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (400, "file_not_found")
    assert answer.json()["param"] == "inputs.0.url"
    # An operator's key reaches all, as with jobs.
    operator = connect("submit", "read")
    assert operator.get(f"/v1/files/{made}").status_code == 200


PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def test_a_job_names_a_file_and_no_answer_its_storage(
    http: httpx.Client, gateway: GatewayServer, ledger: Ledger, client: Client
) -> None:
    place = gateway._app.state.resources.files.place.base
    video, picture = upload(http)["id"], upload(http, PNG, "picture")["id"]
    asked = {"inputs": [video, picture], "questions": ["What?"], "stream": True}
    answer = http.post("/v1/jobs", json=asked)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    request = client.get(job_id, include_request=True).request
    assert request is not None
    assert [each.url for each in request.inputs] == [
        f"{place}{video}/content.mp4",
        f"{place}{picture}/content.png",
    ]
    assert [each.kind for each in request.inputs] == ["video", "image"]
    claim = begin(ledger)
    url = request.inputs[0].url
    failure = Failure(code="source_denied", message=f"{url}: may not be read ({url})", attempt=1)
    assert ledger.fail(claim.job_id, claim.token, failure, delay_s=0) == "failed"
    assert place not in http.get(f"/v1/jobs/{job_id}/events").text
    for path in ("", "/result"):
        text = http.get(f"/v1/jobs/{job_id}{path}").text
        assert place not in text
        assert place.removeprefix("file://") not in text
        assert video in text
        assert "content.mp4" not in text
    shown = http.get(f"/v1/jobs/{job_id}").json()["request"]["inputs"]
    assert [each["url"] for each in shown] == [video, picture]


@only_folder
def test_a_chat_names_a_file(http: httpx.Client, client: Client) -> None:
    video = upload(http)["id"]
    parts = [{"type": "video_url", "video_url": {"url": video}}, {"type": "text", "text": "What?"}]
    body = {"messages": [{"role": "user", "content": parts}]}
    asking = threading.Thread(
        target=http.post, args=("/v1/chat/completions",), kwargs={"json": body}
    )
    asking.start()
    jobs = wait_until(lambda: client.list(include_request=True).jobs)
    client.cancel(jobs[0].id)
    asking.join(30)
    assert jobs[0].request is not None
    assert jobs[0].request.inputs[0].url.endswith(f"{video}/content.mp4")


@only_folder
def test_a_file_of_rows_is_no_input(http: httpx.Client) -> None:
    rows = upload(http, b"{}\n", "rows.jsonl", purpose="batch")["id"]
    answer = http.post("/v1/jobs", json={"inputs": [rows], "questions": ["What?"]})
    assert (answer.status_code, answer.json()["code"]) == (400, "wrong_purpose")


@only_folder
def test_a_gateway_without_a_place_says_so(
    http: httpx.Client, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_place", None)
    answer = http.post("/v1/files", files={"file": ("a", b"a")}, data={"purpose": "vision"})
    assert code_of(answer) == (501, "files_not_configured")
    assert http.get("/v1/files").json()["data"] == []


@only_folder
def test_a_spoiled_key_costs_no_other_file_anything(
    http: httpx.Client, files: Files, redis_client: redis.Redis, settings: Settings
) -> None:
    """Each key about files holds junk in turn, or is of another type."""
    kept, spoiled = upload(http, b"kept")["id"], upload(http, b"spoiled")["id"]
    job = {"inputs": [kept], "questions": ["What?"]}
    assert http.post("/v1/jobs", json=job).status_code == 202
    http.post("/v1/jobs", json={**job, "inputs": [spoiled]})
    raw = redis_client
    found = [
        key
        for key in raw.scan_iter(f"{settings.prefix}:file*")  # type: ignore[union-attr]
        if kept not in key and "sweep" not in key
    ]
    assert {key.removeprefix(settings.prefix).split(":")[1] for key in found} == {"file", "files"}
    assert len(found) == 2 + 4 + 2
    for key in found:
        was, kind = raw.dump(key), raw.type(key)
        for junk in ("\xff", "nonsense", "-1e999", "[]"):
            if kind == "hash":
                for field in raw.hkeys(key):  # type: ignore[union-attr]
                    raw.hset(key, field, junk)
            else:
                raw.zadd(key, {junk: 0, f"file-{'9' * 24}": 1e300})
            check_kept(http, files, kept)
            raw.restore(key, 0, was, replace=True)  # type: ignore[arg-type]
        if f":{spoiled}" in key:
            raw.set(key, "another type")
            check_kept(http, files, kept)
            raw.restore(key, 0, was, replace=True)  # type: ignore[arg-type]


def check_kept(http: httpx.Client, files: Files, kept: str) -> None:
    assert http.get(f"/v1/files/{kept}/content").content == b"kept"
    assert kept in [each["id"] for each in http.get("/v1/files").json()["data"]]
    made = upload(http, b"new")["id"]
    assert http.delete(f"/v1/files/{made}").status_code == 200
    files.sweep(time.time())


def test_naming_unknown_and_foreign_files_leaves_nothing_in_redis(
    http: httpx.Client, connect: Connect, redis_client: redis.Redis, settings: Settings
) -> None:
    foreign = upload(connect("submit", "read", tenant="other"))["id"]
    for file_id in (foreign, foreign[:-4] + "0000"):
        job = {"inputs": [file_id], "questions": ["What?"]}
        assert http.post("/v1/jobs", json=job).json()["code"] == "file_not_found"
    assert list(redis_client.scan_iter(f"{settings.prefix}:file:users:*")) == []


@only_folder
def test_a_search_sees_the_id_of_a_file_and_not_its_place(http: httpx.Client, files: Files) -> None:
    file_id = http.post("/v1/files", content=BODY, headers={"content-type": "video/mp4"}).json()[
        "id"
    ]
    asked = {"inputs": [file_id], "questions": ["Where?"]}
    job_id = http.post("/v1/jobs", json=asked).json()["id"]

    def find(text: str) -> list[str]:
        return [job["id"] for job in http.get("/v1/jobs", params={"q": text}).json()["jobs"]]

    assert find(file_id) == [job_id]
    place = urlsplit(files.place.base).path.strip("/").rsplit("/", 1)[-1]
    assert find("file://") == find(place) == find("content.mp4") == find(f"/{file_id}") == []


@only_folder
def test_slow_uploads_of_a_tenant_leave_turns_to_others(
    http: httpx.Client, connect: Connect, gateway: GatewayServer, files: Files
) -> None:
    head = (
        "POST /v1/files?filename=a.mp4 HTTP/1.1\r\nHost: a\r\nContent-Type: video/mp4\r\n"
        f"Authorization: {http.headers['authorization']}\r\nContent-Length: 99\r\n\r\nabc"
    )
    headers = {"content-type": "video/mp4"}
    asked = {"bytes": 3, "filename": "a.mp4", "mime_type": "video/mp4", "purpose": "user_data"}
    part = f"/v1/uploads/{http.post('/v1/uploads', json=asked).json()['id']}/parts"
    with ExitStack() as slow:
        for _ in range(MOST_OF_TENANT):
            link = socket.create_connection(gateway.socket.getsockname(), timeout=10)
            slow.enter_context(link).sendall(head.encode())
        wait_until(lambda: files._writing == MOST_OF_TENANT)
        for refused in (
            http.post("/v1/files", content=b"abc", headers=headers),
            http.post(part, files={"data": b"abc"}),
        ):
            assert code_of(refused) == (503, "uploads_busy")
            assert refused.headers["retry-after"] == "5"
        other = connect("submit", tenant="b")
        assert other.post("/v1/files", content=b"abc", headers=headers).is_success
    wait_until(lambda: files._writing == 0)
    assert http.post("/v1/files", content=b"abc", headers=headers).is_success
