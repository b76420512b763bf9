"""Sheets of thumbnails: each frame on its tile, of a bounded size, and no failure beyond a warning."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from videoqa import errors
from videoqa.contract import SHEET_HEAD_BYTES, JobRequest, Result, Sheet, find_thumbnail
from videoqa.jobs import Claim
from videoqa.storage import ObjectStore
from videoqa_worker.job.result_object import list_roots
from videoqa_worker.job.sheet import MOST_TILES, JobSheet, KeptSheet, SheetKeeper

NOON = 1_700_000_000.0
"""In 2023, on the 14th of November."""


def claim(job_id: str = "job_1", attempt: int = 1, **fields: Any) -> Claim:
    asked = {"inputs": ["s3://b/k.mp4"], "questions": ["What?"], "sheet": True, **fields}
    request = JobRequest.model_validate(asked)
    return Claim(job_id, attempt, request, NOON, 60.0, 0.0, "t")


def make_keeper(
    folder: Path, objects: ObjectStore | None = None, *, default: bool = False
) -> SheetKeeper:
    template = folder.as_uri() + "/{date}/{job_id}.jpg"
    store = objects or ObjectStore(file_roots=list_roots(template, ()))
    return SheetKeeper(store, template, is_default=default)


def paint(number: int, width: int = 1280, height: int = 720) -> np.ndarray:
    """A frame whose red channel tells its number."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = number * 2 % 256
    frame[..., 1] = 255 - number * 2 % 256
    return frame


def finish(sheet: JobSheet) -> KeptSheet:
    sheet.start_writing()
    return sheet.end()


def cut(kept: KeptSheet) -> list[np.ndarray]:
    """The tiles, as a dashboard cuts them."""
    assert kept.url is not None
    assert kept.layout is not None
    layout: Sheet = kept.layout
    picture = np.asarray(Image.open(io.BytesIO(ObjectStore().read(kept.url))))
    tiles = []
    for n, _ in enumerate(layout.frames):
        left = n % layout.columns * layout.tile_width
        top = n // layout.columns * layout.tile_height
        tiles.append(picture[top : top + layout.tile_height, left : left + layout.tile_width])
    return tiles


@pytest.mark.parametrize(("count", "side"), [(1, 320), (8, 320), (16, 226), (32, 160), (128, 160)])
def test_each_frame_is_on_its_tile(tmp_path: Path, count: int, side: int) -> None:
    sheet = make_keeper(tmp_path).begin(claim())
    sheet.add([paint(n) for n in range(count)])
    kept = finish(sheet)
    assert kept.url == (tmp_path / "2023-11-14" / "job_1.jpg").as_uri()
    assert kept.layout is not None
    assert kept.layout.frames == tuple(range(count))
    assert (kept.layout.tile_width, kept.layout.tile_height) == (side, round(side * 9 / 16))
    for n, tile in enumerate(cut(kept)):
        assert tile.shape == (kept.layout.tile_height, kept.layout.tile_width, 3)
        assert abs(float(tile[4:-4, 4:-4, 0].mean()) - n * 2 % 256) < 6, n


def test_a_sheet_has_a_small_picture_of_its_middle_in_its_head(tmp_path: Path) -> None:
    sheet = make_keeper(tmp_path).begin(claim())
    sheet.add([paint(n) for n in range(9)])
    kept = finish(sheet)
    copied = (
        make_keeper(tmp_path)
        .begin(claim("job_2"))
        .copy(Result.model_construct(sheet_url=kept.url, sheet=kept.layout))
    )
    for each in (kept, copied):
        head = ObjectStore().read(str(each.url), SHEET_HEAD_BYTES)
        found = find_thumbnail(head)
        assert found is not None
        picture = Image.open(io.BytesIO(found))
        assert picture.size == (192, 108)
        assert abs(float(np.asarray(picture)[4:-4, 4:-4, 0].mean()) - 8) < 6
        assert find_thumbnail(head[:1000]) is None


def test_a_small_frame_is_not_blown_up_and_another_shape_gets_bars(tmp_path: Path) -> None:
    sheet = make_keeper(tmp_path).begin(claim())
    sheet.add([paint(100, 64, 48), paint(100, 48, 64)])
    kept = finish(sheet)
    assert kept.layout is not None
    assert (kept.layout.tile_width, kept.layout.tile_height) == (64, 64)
    first, _ = cut(kept)
    assert first[2].max() < 40
    assert first[32, 32, 0] > 190


def test_a_long_video_has_tiles_of_every_second_or_fourth_frame(tmp_path: Path) -> None:
    sheet = make_keeper(tmp_path).begin(claim())
    total = 3 * MOST_TILES
    for n in range(total):
        sheet.add([paint(n, 320, 180)], total)
    kept = finish(sheet)
    assert kept.layout is not None
    assert kept.layout.frames == tuple(range(0, total, 4))
    assert abs(float(cut(kept)[9][..., 0].mean()) - 72) < 6


def test_frames_of_an_earlier_attempt_are_counted_and_not_shown(tmp_path: Path) -> None:
    sheet = make_keeper(tmp_path).begin(claim())
    sheet.skip(5)
    sheet.add([paint(1), paint(2)])
    kept = finish(sheet)
    assert kept.layout is not None
    assert kept.layout.frames == (5, 6)


@pytest.mark.parametrize(
    ("asked", "default", "kept"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
def test_the_request_decides_and_else_the_worker(
    tmp_path: Path, asked: bool | None, default: bool, kept: bool
) -> None:
    sheet = make_keeper(tmp_path, default=default).begin(claim(sheet=asked))
    sheet.add([paint(1)])
    assert (finish(sheet).url is not None) is kept
    assert bool(list(tmp_path.iterdir())) is kept


class Failing(ObjectStore):
    """Storage that does not answer, or only after a while."""

    def __init__(self, hangs_s: float = 0.0) -> None:
        super().__init__()
        self._hangs_s = hangs_s
        self.over, self.failed = threading.Event(), threading.Event()

    def write(self, url: str, data: bytes, **more: Any) -> bool:
        self.over.wait(self._hangs_s)
        self.failed.set()
        raise errors.OutputUnavailable("storage is away")


@pytest.mark.parametrize(
    ("objects", "why"),
    [
        (Failing(), "storage is away"),
        (Failing(0.5), "not written within"),
        (ObjectStore(file_roots=()), "no folder"),
    ],
)
def test_a_sheet_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: ObjectStore, why: str
) -> None:
    monkeypatch.setattr("videoqa_worker.job.sheet.WAIT_S", 0.2)
    sheet = make_keeper(tmp_path, objects).begin(claim())
    sheet.add([paint(1)])
    kept = finish(sheet)
    assert (kept.url, kept.layout) == (None, None)
    assert kept.warning is not None
    assert (kept.warning.code, kept.warning.param) == ("sheet_not_stored", "sheet")
    assert why in kept.warning.message


def test_a_store_that_hangs_holds_no_job_that_is_answered_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = make_keeper(tmp_path).begin(claim())
    earlier.add([paint(1)])
    kept = finish(earlier)
    known = Result.model_construct(sheet_url=kept.url, sheet=kept.layout)
    monkeypatch.setattr("videoqa_worker.job.sheet.WAIT_S", 0.2)
    hanging = Failing(60.0)
    copied = make_keeper(tmp_path, hanging).begin(claim("job_2")).copy(known)
    assert not hanging.failed.is_set()
    hanging.over.set()
    assert copied.warning is not None
    assert "not written within" in copied.warning.message
    good = make_keeper(tmp_path).begin(claim("job_2")).copy(known)
    assert good == KeptSheet((tmp_path / "2023-11-14" / "job_2.jpg").as_uri(), kept.layout)


def test_a_frame_that_cannot_be_drawn_is_a_warning(tmp_path: Path) -> None:
    sheet = make_keeper(tmp_path).begin(claim())
    sheet.add([np.zeros((0, 0, 3), np.uint8)])
    sheet.add([paint(1)])
    assert (kept := finish(sheet)).warning is not None
    assert kept.url is None


def test_a_sheet_of_a_later_attempt_and_a_foreign_file_stay(tmp_path: Path) -> None:
    keeper = make_keeper(tmp_path)

    def keep(job_id: str, attempt: int, number: int) -> KeptSheet:
        sheet = keeper.begin(claim(job_id, attempt))
        sheet.add([paint(number)])
        return finish(sheet)

    path = tmp_path / "2023-11-14" / "job_1.jpg"
    keep("job_1", 2, 40)
    later = path.read_bytes()
    keep("job_1", 1, 90)
    assert path.read_bytes() == later
    keep("job_1", 3, 90)
    assert path.read_bytes() != later
    (path.parent / "job_2.jpg").write_bytes(b"mine")
    kept = keep("job_2", 1, 5)
    assert kept.warning is not None
    assert "stays as it is" in kept.warning.message
    assert (path.parent / "job_2.jpg").read_bytes() == b"mine"
    (path.parent / "job_3.jpg").write_bytes(path.read_bytes())
    assert keep("job_3", 9, 5).warning is not None
    assert sorted(one.name for one in path.parent.iterdir()) == [
        "job_1.jpg",
        "job_2.jpg",
        "job_3.jpg",
    ]


def test_a_worker_that_ends_keeps_no_sheet_and_fails_no_job(tmp_path: Path) -> None:
    keeper = make_keeper(tmp_path)
    sheet = keeper.begin(claim())
    keeper.close()
    sheet.add([paint(1)])
    assert finish(sheet).warning is not None
