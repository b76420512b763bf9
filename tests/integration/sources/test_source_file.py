"""file:// reads below the opened folders and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videoqa.errors import (
    InputChanged,
    JobCanceled,
    SourceDenied,
    SourceEmpty,
    SourceError,
    SourceNotFound,
    VideoCorrupt,
)
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import LocalCopy, Sources


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


def read(url: str, config: SourceConfig) -> LocalCopy:
    with Sources(config) as sources, sources.open(url) as copy:
        assert copy.path.stat().st_size == copy.size_bytes
        return copy


def test_a_file_below_a_root_is_read_where_it_lies(root: Path) -> None:
    path = root / "a clip%20 für.mp4"
    path.write_bytes(b"video")
    copy = read(path.as_uri(), SourceConfig(file_roots=(root,)))
    assert copy.path == path
    assert (copy.size_bytes, copy.fetched_bytes, copy.version_id) == (5, 0, None)
    assert path.read_bytes() == b"video"


def test_the_etag_tells_a_changed_file(root: Path) -> None:
    path, config = root / "a.mp4", SourceConfig(file_roots=(root,))
    path.write_bytes(b"one")
    first = read(path.as_uri(), config).etag
    assert read(path.as_uri(), config).etag == first
    os.utime(path, ns=(0, 12345))
    assert read(path.as_uri(), config).etag != first


def test_a_file_that_is_written_to_while_it_is_read_is_input_changed(root: Path) -> None:
    path, config = root / "a.mp4", SourceConfig(file_roots=(root,))
    path.write_bytes(b"one")
    with (
        Sources(config) as sources,
        pytest.raises(InputChanged, match="once it is complete"),
        sources.open(path.as_uri()),
    ):
        path.write_bytes(b"one and more")


def test_a_file_that_vanishes_is_not_said_to_be_corrupt(root: Path) -> None:
    path, config = root / "a.mp4", SourceConfig(file_roots=(root,))
    path.write_bytes(b"one")

    def vanish() -> None:
        with Sources(config) as sources, sources.open(path.as_uri()):
            path.unlink()
            raise VideoCorrupt("no picture decodes")

    with pytest.raises(InputChanged):
        vanish()


def test_a_file_that_is_gone_once_it_was_read_was_read(root: Path) -> None:
    path = root / "a.mp4"
    path.write_bytes(b"one")
    with Sources(SourceConfig(file_roots=(root,))) as sources, sources.open(path.as_uri()):
        path.unlink()


def test_without_roots_file_is_closed(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"video")
    with pytest.raises(SourceDenied, match="VIDEOQA_FILE_ROOTS"):
        read((root / "a.mp4").as_uri(), SourceConfig())


def test_what_lies_outside_is_denied_whether_it_exists_or_not(root: Path) -> None:
    outside = root.parent / "secret"
    outside.write_bytes(b"secret")
    (root / "link").symlink_to(outside)
    (root / "folder").symlink_to(root.parent)
    (root.parent / "videos-of-others").mkdir()
    (root.parent / "videos-of-others" / "a").write_bytes(b"secret")
    config = SourceConfig(file_roots=(root,))
    base = root.as_uri()
    for url in (
        outside.as_uri(),
        f"{base}/../secret",
        f"{base}/%2e%2e/secret",
        f"{base}/..%2fsecret",
        f"{base}/link",
        f"{base}/folder/secret",
        f"{base}-of-others/a",
        f"{base}/../no-such-file",
        "file:///etc/passwd",
        "file:///dev/zero",
        "file:///proc/self/environ",
    ):
        with pytest.raises(SourceDenied, match="outside"):
            read(url, config)


def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"video")
    (root / "b.mp4").symlink_to("a.mp4")
    assert read((root / "b.mp4").as_uri(), SourceConfig(file_roots=(root,))).size_bytes == 5


def test_what_is_no_readable_file_is_said_clearly(root: Path) -> None:
    config = SourceConfig(file_roots=(root,))
    (root / "empty.mp4").touch()
    (root / "file").write_bytes(b"x")
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    cases: list[tuple[str, type[SourceError], str]] = [
        ("", SourceDenied, "is a folder"),
        ("/pipe", SourceDenied, "no regular file"),
        ("/none.mp4", SourceNotFound, "no file"),
        ("/file/below", SourceNotFound, "no file"),
        ("/empty.mp4", SourceEmpty, "0 bytes"),
        ("/nul%00.mp4", SourceDenied, "no path"),
        ("/%ff%fe.mp4", SourceNotFound, "no file"),  # a name that is not UTF-8 is a name
        ("/loop", SourceDenied, "loop"),
    ]
    for name, kind, message in cases:
        with pytest.raises(kind, match=message):
            read(root.as_uri() + name, config)


def test_the_limit_of_fetched_bytes_is_not_one_of_local_files(root: Path) -> None:
    (root / "a.mp4").write_bytes(bytes(100))
    config = SourceConfig(file_roots=(root,), max_bytes=99)
    assert read((root / "a.mp4").as_uri(), config).size_bytes == 100


def test_a_canceled_job_reads_nothing(root: Path) -> None:
    def check() -> None:
        raise JobCanceled("canceled")

    with (
        Sources(SourceConfig(file_roots=(root,))) as sources,
        pytest.raises(JobCanceled),
        sources.open((root / "a.mp4").as_uri(), check=check),
    ):
        pass
