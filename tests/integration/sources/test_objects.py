"""Objects on a real S3 server and as files: written whole, and never by a writer that comes too late."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from videoqa import errors
from videoqa.storage import ObjectStore
from videoqa_worker.embedded import S3Server


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


def test_who_may_only_write_wins_as_the_last(s3: S3Server, tmp_path: Path) -> None:
    """A role that may not read cannot compare, so its writes are unconditional."""
    url = f"s3://objects/{tmp_path.name}/w.json"
    ObjectStore().write(url, b"2")

    class Blind(ObjectStore):
        def _read_s3(self, url: str) -> tuple[bytes, str]:
            raise errors.OutputDenied("may only write")

    assert Blind().write(url, b"1", keeps=newer_than(1))
    assert ObjectStore().read(url) == b"1"


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
