"""Objects on a real S3 server and as files: written whole, and never by a writer that comes too late."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from support.servers import WRITE_ONLY, HttpServer, Route

from videoqa import errors
from videoqa.bulk import OutputDir
from videoqa.storage import ObjectStore
from videoqa_worker.embedded import S3Server, s3_server
from videoqa_worker.embedded.process import free_port, free_ports


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    client = s3_server.client()
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket="objects")
    return s3_server


@pytest.fixture(params=["s3", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Prefix of the URLs of a store."""
    if request.param == "file":
        return tmp_path.as_uri()
    request.getfixturevalue("s3")
    return f"s3://objects/{tmp_path.name}"


def newer_than(number: int) -> Callable[[bytes], bool]:
    return lambda there: int(there) > number


def test_an_endpoint_that_is_none_is_said_so() -> None:
    with pytest.raises(errors.OutputDenied, match="VIDEOQA_S3_ENDPOINT_URL"):
        ObjectStore(s3_endpoint_url="nonsense").read("s3://b/k")


def test_what_is_newer_stays(folder: str) -> None:
    store, url = ObjectStore(), f"{folder}/n.json"
    assert store.write(url, b"2", keeps=newer_than(2))
    assert not store.write(url, b"1", keeps=newer_than(1))
    assert store.read(url) == b"2"
    assert store.write(url, b"3", keeps=newer_than(3))
    assert store.write(url, b"0")
    assert store.read(url) == b"0"


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_no_missing_object() -> None:
    store, url = ObjectStore(), "s3://missing/archive"
    reason = "bucket missing does not exist; create it first"
    with pytest.raises(errors.OutputNotFound, match=reason):
        store.write(f"{url}/n.json", b"1", keeps=newer_than(1))
    with pytest.raises(errors.OutputNotFound, match=reason):
        OutputDir(url, store).read_root()
    assert OutputDir("s3://objects/archive", store).read_root() is None


@pytest.mark.parametrize("seed", range(4))
def test_of_many_writers_at_once_the_newest_stays(folder: str, seed: int) -> None:
    """Each write is stored or was replaced by a newer one, unless other writers hold the object busy."""
    store, url = ObjectStore(), f"{folder}/race-{seed}.json"
    numbers = list(range(12))
    random.Random(seed).shuffle(numbers)
    together = threading.Barrier(len(numbers))
    written: list[int] = []

    def write(number: int) -> None:
        together.wait()
        while True:
            try:
                if store.write(url, b"%d" % number, keeps=newer_than(number)):
                    written.append(number)
                return
            except errors.OutputUnavailable:
                continue

    writers = [threading.Thread(target=write, args=(number,)) for number in numbers]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert int(store.read(url)) == max(numbers) == max(written)


@pytest.mark.usefixtures("s3")
def test_bytes_that_were_broken_on_the_way_make_no_conflict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, url = ObjectStore(), f"s3://objects/{tmp_path.name}/own.json"
    store.write(url, b"own 1")
    read, broken = ObjectStore._read_s3, [True]

    def read_once_broken(self: ObjectStore, url: str, limit: int | None) -> tuple[bytes, str]:
        there, etag = read(self, url, limit)
        return (b"\xff" + there[1:] if broken and broken.pop() else there), etag

    def judge(there: bytes) -> bool:
        if not there.startswith(b"own"):
            raise errors.OutputConflict("not own")
        return False

    monkeypatch.setattr(ObjectStore, "_read_s3", read_once_broken)
    assert store.write(url, b"own 2", keeps=judge)
    assert store.read(url) == b"own 2"


@pytest.mark.parametrize("seed", range(3))
def test_of_jobs_that_write_one_object_at_once_one_is_stored_and_the_others_are_told(
    folder: str, seed: int
) -> None:
    store, url = ObjectStore(), f"{folder}/jobs-{seed}.json"
    together = threading.Barrier(10)
    stored: list[bytes] = []
    refused: list[bytes] = []

    def refuse(there: bytes) -> bool:
        raise errors.OutputConflict("another job's")

    def write(name: bytes) -> None:
        together.wait()
        try:
            store.write(url, name, keeps=refuse)
            stored.append(name)
        except errors.OutputConflict:
            refused.append(name)

    writers = [threading.Thread(target=write, args=(b"job %d" % n,)) for n in range(10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert (len(stored), len(refused)) == (1, 9)
    assert store.read(url) == stored[0]


def test_who_may_not_read_writes_only_where_nothing_is(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 says AccessDenied of a missing key, too, to a role without ListBucket."""
    url = f"s3://open/{tmp_path.name}/w.json"
    for name, value in s3.environment(WRITE_ONLY).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it holds credentials read before
    blind = ObjectStore()
    assert blind.write(url, b"2", keeps=newer_than(2))
    with pytest.raises(errors.OutputDenied, match="allow s3:GetObject"):
        blind.write(url, b"3", keeps=newer_than(3))
    found = s3.client().get_object(Bucket="open", Key=f"{tmp_path.name}/w.json")["Body"].read()
    assert found == b"2"


class PlainStore(BaseHTTPRequestHandler):
    """Stands in for an S3 store without conditional writes, of which none can be installed here."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    refuses: bool
    """True: it answers conditions with 501; False: it does not see them."""

    def do_GET(self) -> None:
        found = self.objects.get(self.path)
        if found is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self.answer(200, found)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refuses and ("If-Match" in self.headers or "If-None-Match" in self.headers):
            self.answer(501, b"<Error><Code>NotImplemented</Code></Error>")
            return
        self.objects[self.path] = data
        self.answer(200, b"")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"one"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("refuses", [True, False], ids=["refuses", "ignores"])
def test_a_store_without_conditional_writes_loses_no_object_that_was_there(
    *, refuses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    # Else boto3 sends a body in chunks, which this store would have to take apart.
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    handler = type("Handler", (PlainStore,), {"objects": {}, "refuses": refuses})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        store = ObjectStore(s3_endpoint_url=f"http://127.0.0.1:{server.server_address[1]}")
        url = "s3://bucket/n.json"
        assert store.write(url, b"2", keeps=newer_than(2))
        assert not store.write(url, b"1", keeps=newer_than(1))
        assert store.read(url) == b"2"
        assert store.write(url, b"3", keeps=newer_than(3))
        assert store.read(url) == b"3"
        server.shutdown()


def test_of_a_far_larger_object_only_the_beginning_is_compared(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videoqa.storage.objects._COMPARED_BYTES", 100)
    store, url = ObjectStore(), f"{folder}/large"
    store.write(url, b"x" * 10_000)
    seen: list[int] = []
    assert not store.write(url, b"small", keeps=lambda there: not seen.append(len(there)))
    assert seen == [100]
    assert store.read(url, 10) == b"x" * 10


def test_listing_goes_through_all_pages_and_leaves_out_what_is_being_written(folder: str) -> None:
    store = ObjectStore()
    assert list(store.list(f"{folder}/none/")) == []
    names = ["a.json", ".hidden.json", "deep/er/b c%3F#.json", ".videoqa-half.part"]
    for name in names:
        store.write(f"{folder}/l/{quote(name)}", b"{}")
    store.write(f"{folder}/lost.json", b"{}")
    expected = {f"{folder}/l/{quote(name)}" for name in names[:3]}
    assert set(store.list(f"{folder}/l/")) == expected
    for url in expected:
        store.delete(url)
        store.delete(url)
    assert list(store.list(f"{folder}/l/")) == []


class _Strange(BaseHTTPRequestHandler):
    """A store that answers all requests with the same bytes."""

    reply = b""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.wfile.write(self.reply)
        self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


def reply_with(status: int, body: bytes = b"", **fields: str) -> bytes:
    lines = {"Connection": "close", "Content-Length": str(len(body))} | fields
    head = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in lines.items())]
    return "\r\n".join(head).replace("_", "-").encode() + b"\r\n\r\n" + body


STRANGE = {
    "an error without a code": reply_with(403, b"<Error><Message>m</Message></Error>"),
    "an error with a nested code": reply_with(400, b"<Error><Code><A>1</A></Code></Error>"),
    "an error of 60 kB": reply_with(403, b"<Error><Code>" + b"A" * 60_000 + b"</Code></Error>"),
    "no version": reply_with(200, b"abc"),
    "a length that is no number": reply_with(200, b"abc", Content_Length="abc", ETag='"a"'),
    "a length below zero": reply_with(200, b"abc", Content_Length="-5", ETag='"a"'),
    "less than its length": reply_with(200, b"abc", Content_Length="100", ETag='"a"'),
    "a year that no calendar has": reply_with(
        200, b"abc", ETag='"a"', Last_Modified="Mon, 01 Jan 99999 00:00:00 GMT"
    ),
    "no HTTP": b"abc\r\n\r\n",
    "a redirect to itself": reply_with(307, Location="/b/k"),
    "a page of nothing": reply_with(200, b"<a>" * 100),
    "an entry without key": reply_with(
        200, b"<ListBucketResult><Contents><Size>z</Size></Contents></ListBucketResult>"
    ),
}
"""Answers of a store, or of whatever listens in its place."""


@pytest.mark.parametrize("answer", STRANGE)
@pytest.mark.usefixtures("s3")
def test_a_strange_answer_of_a_store_is_an_error_of_ours(answer: str, tmp_path: Path) -> None:
    class Handler(_Strange):
        reply = STRANGE[answer]

    (tmp_path / "file").write_bytes(b"abc")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        store = ObjectStore(s3_endpoint_url=f"http://127.0.0.1:{server.server_port}")
        with (tmp_path / "file").open("r+b") as file:
            calls: list[Callable[[], object]] = [
                lambda: store.read("s3://b/k"),
                lambda: store.version("s3://b/k"),
                lambda: store.write("s3://b/k", b"1"),
                lambda: store.write("s3://b/k", b"1", keeps=lambda there: False),
                lambda: next(store.list("s3://b/p/"), None),
                lambda: store.upload(file, "s3://b/k"),
                lambda: store.download("s3://b/k", file),
                lambda: store.delete("s3://b/k"),
            ]
            for call in calls:
                with suppress(errors.OutputError):
                    call()
        server.shutdown()


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_what_is_no_file_holds_no_reader(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with socket.socket(socket.AF_UNIX) as end:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            end.bind(str(path))
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero")
        with pytest.raises(errors.OutputDenied):
            ObjectStore().read(path.as_uri(), 100)


def test_a_path_that_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    store = ObjectStore(file_roots=(tmp_path,))
    for name in ("circle", "a%00b"):
        url = f"{tmp_path.as_uri()}/{name}"
        for call in (store.check, store.read, store.version, lambda url: store.write(url, b"{}")):
            with pytest.raises(errors.OutputDenied):
                call(url)


def test_the_text_of_a_stores_error_is_not_shown(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    text = b"</Code><Message>Signature=marker\nAWSAccessKeyId=marker</Message></Error>"
    for code, told in ((b"Odd", "answered Odd"), (b"X-Amz-Signature=marker", "answered ?")):
        http_server.routes["/open/a"] = Route(b"<Error><Code>" + code + text, status=418)
        with pytest.raises(errors.OutputUnavailable) as caught:
            ObjectStore(s3_endpoint_url=http_server.url("")).read("s3://open/a")
        assert "marker" not in str(caught.value)
        assert told in str(caught.value)


def test_an_s3_server_whose_port_was_taken_meanwhile_gets_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def find(count: int) -> list[int]:
        asked.append(free_ports(count))
        return [taken.getsockname()[1], *asked[-1][1:]] if len(asked) == 1 else asked[-1]

    monkeypatch.setattr(s3_server, "free_ports", find)
    with socket.create_server(("127.0.0.1", free_port())) as taken, S3Server(tmp_path) as server:
        assert (len(asked), server.port) == (2, asked[1][0])
        server.client().create_bucket(Bucket="there")
