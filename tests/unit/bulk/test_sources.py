"""Sources: one video has one name, however it is spelled, and nothing is left out silently."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from videoqa import errors
from videoqa.bulk import Manifest, Row
from videoqa.bulk.index.row_index import RowIndex
from videoqa.bulk.manifest.names import local_path
from videoqa.storage import ObjectStore

NAMES = ("b.mp4", "a/z.mkv", "a/c/y #1.mp4", "a/ü.webm")


def read(*sources: str | Path, **options: Any) -> tuple[list[Row], Manifest]:
    defaults = {"questions": ["What is it?"]}
    with Manifest(
        [str(source) for source in sources], defaults=defaults, store=ObjectStore(), **options
    ) as manifest:
        with RowIndex() as index:
            count = manifest.check(index)
        found = list(manifest.rows())
        assert len(found) == count
        return found, manifest


def identities(found: Sequence[Row]) -> dict[str, str]:
    return {row.custom_id: row.digest for row in found}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive; the working folder is the one above it."""
    for name in NAMES:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "videos"


def test_a_video_is_the_same_row_however_its_source_is_spelled(folder: Path) -> None:
    expected = identities(read(folder)[0])
    assert set(expected) == set(NAMES)
    elsewhere = folder.parent / "lists"
    elsewhere.mkdir()
    (elsewhere / "paths.txt").write_text("".join(f"{folder / name}\n" for name in NAMES))
    (folder.parent / "here.txt").write_text("".join(f"./videos//{name}\n" for name in NAMES))
    (elsewhere / "table.csv").write_text("url\n" + "".join(f"../videos/{n}\n" for n in NAMES))
    (elsewhere / "lines.jsonl").write_text(
        "".join(f'{{"url": "{(folder / name).as_uri()}"}}\n' for name in NAMES)
    )
    os.symlink(folder, folder.parent / "link")
    spellings: list[tuple[str, ...]] = [
        ("videos",), ("videos/",), ("./videos",), ("lists/../videos",), (f"{folder}/",),
        ("videos/**/*",), (f"{folder}/**",), ("lists/paths.txt",), ("here.txt",),
        ("lists/table.csv",), ("lists/lines.jsonl",), ("link",),
        tuple(f"videos/{name}" for name in NAMES),
        ("videos/a", "videos/b.mp4"),
        ("videos/*.mp4", "videos/a/*", "videos/a/c/*.mp4"),
    ]  # fmt: skip
    for sources in spellings:
        found, _ = read(*sources, root="videos/")
        assert identities(found) == expected, sources
    for sources in spellings[:7]:
        assert identities(read(*sources)[0]) == expected, sources


def test_videos_beside_the_root_are_named_by_their_whole_path(folder: Path) -> None:
    found, _ = read("videos", "s3://bucket/c d.mp4", root="videos/a")
    assert set(identities(found)) == {
        "z.mkv", "c/y #1.mp4", "ü.webm", str(folder / "b.mp4"), "s3://bucket/c d.mp4"
    }  # fmt: skip
    found, _ = read("s3://bucket/x/c d.mp4", "s3://bucket/x/y/e.mp4")
    assert set(identities(found)) == {"c d.mp4", "y/e.mp4"}
    with pytest.raises(errors.InvalidRequest, match="expected a folder or s3://bucket/prefix/"):
        read("videos", root="https://host/")


def test_an_archive_that_moved_has_the_same_rows_under_its_new_root(folder: Path) -> None:
    before, _ = read(folder)
    moved = folder.rename(folder.parent / "moved")
    assert identities(read(moved, root=str(moved))[0]) == identities(before)


def test_only_takes_the_rows_whose_names_match(folder: Path) -> None:
    assert set(identities(read("videos", only=["a/*.mp4", "b.*"])[0])) == {"a/c/y #1.mp4", "b.mp4"}
    with pytest.raises(errors.ManifestRefused, match="--only takes none of the 4 videos"):
        read("videos", only=["c/*"])


def test_links_to_folders_are_left_out_and_counted_and_loops_end(folder: Path) -> None:
    (folder.parent / "more").mkdir()
    (folder.parent / "more" / "x.mp4").write_bytes(b"")
    for n in range(3):
        os.symlink("..", folder / "a" / f"up{n}")
    os.symlink(folder.parent / "more", folder / "more")
    os.symlink(folder.parent / "more" / "x.mp4", folder / "x.mp4")
    for source in ("videos", "videos/**/*"):
        found, manifest = read(source)
        assert set(identities(found)) == {*NAMES, "x.mp4"}
        assert manifest.walker.links == 4
    found, _ = read("videos/more")
    assert set(identities(found)) == {"x.mp4"}


def make_unreadable(folder: Path) -> None:
    """Makes a folder that even root cannot read: its path is longer than the system takes."""
    handle = os.open(folder, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=handle)
        inner = os.open("n" * 250, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)


def test_a_folder_that_cannot_be_read_is_an_error_or_counted(folder: Path) -> None:
    (folder / "a" / "deep").mkdir()
    make_unreadable(folder / "a" / "deep")
    for source in ("videos", "videos/**/*"):
        with pytest.raises(errors.InvalidRequest, match="--skip-unreadable"):
            read(source)
        found, manifest = read(source, skip_unreadable=True)
        assert set(identities(found)) == set(NAMES)
        assert manifest.walker.unreadable == 1


def test_several_folders_are_sources_and_lines_are_told_with_theirs(folder: Path) -> None:
    found, _ = read("videos/a", "videos/b.mp4")
    assert set(identities(found)) == set(NAMES)
    with pytest.raises(errors.ManifestRefused) as caught:
        read("videos/b.mp4", "videos")
    assert "videos: line 1: custom_id 'b.mp4' is already that of videos/b.mp4: line 1" in (
        caught.value.message
    )


@pytest.mark.parametrize("name", ["list.csv", "list.txt", "list.jsonl"])
def test_a_list_that_cannot_be_read_is_an_error(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.symlink("/proc/self/mem", folder / name)  # even root reads no byte at its beginning
    assert stat.S_ISREG(os.stat(folder / name).st_mode)
    with pytest.raises(errors.InvalidRequest, match="can't read"):
        read(f"videos/{name}")


def test_names_that_are_not_utf8_are_rows_with_escapes(folder: Path) -> None:
    raw = os.fsencode(folder) + b"/caf\xe9.mp4"
    Path(os.fsdecode(raw)).write_bytes(b"")
    found, _ = read("videos", only=["caf*"])
    (row,) = found
    assert row.custom_id == r"caf\xe9.mp4"
    assert os.fsencode(local_path(row.request.inputs[0].url)) == raw
    row.request.model_dump_json().encode()
    with pytest.raises(errors.InvalidRequest) as caught:
        read(os.fsdecode(b"videos/\xff"))
    caught.value.message.encode()
