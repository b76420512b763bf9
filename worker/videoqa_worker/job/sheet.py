"""Sheets: thumbnails of the frames that the model saw, one JPEG a job, for people and dashboards.

A sheet is drawn while the model answers, written in a thread of its own, and waited for no longer than a few
seconds after the answers are there. It never fails its job: a warning in the result says why there is none.
Its URL is made of the worker's setting, the job's id and its date alone, so no request leads anywhere else.
"""

from __future__ import annotations

import io
import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from videoqa import errors
from videoqa.contract import (
    Result,
    Sheet,
    Warn,
    add_thumbnail,
    render_output,
    to_datetime,
)
from videoqa.redaction import redact_text
from videoqa.storage import ObjectStore
from videoqa_worker import log_events
from videoqa_worker.frames import make_thumbnail

if TYPE_CHECKING:
    from videoqa.jobs import Claim

__all__ = ["MOST_TILES", "JobSheet", "KeptSheet", "SheetKeeper", "draw_tiles"]

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

MOST_SIDE, LEAST_SIDE = 320, 160
"""Pixels of a tile's longer side: 320 for 8 frames, and less for more, so that a sheet stays near 60 KB."""
FULL_SIZE_FRAMES = 8
MOST_TILES = 128
"""Most tiles; of more frames every second, fourth, ... has one."""
QUALITY = 70
THUMBNAIL_SIDE = 192
"""Pixels of the longer side of the thumbnail in a sheet's head: twice as many as a list shows."""
WAIT_S = 5.0
"""Time that a sheet gets beyond the last answer, in which a store that hangs would hold the job's slot."""
MOST_BYTES = 8_000_000
"""Longest sheet that is read; 128 tiles of noise have 2 MB."""
_MARK = "videoqa sheet of {job_id} attempt {attempt}"
_MARKED = re.compile(rb"videoqa sheet of (\S{1,64}) attempt (\d{1,9})")
_MARK_WITHIN = 1000


@dataclass(frozen=True)
class KeptSheet:
    """A sheet as the result names it, or the reason why there is none."""

    url: str | None = None
    layout: Sheet | None = None
    warning: Warn | None = None


class SheetKeeper:
    """Keeps the sheets of one worker. Thread-safe."""

    def __init__(self, objects: ObjectStore, template: str, *, is_default: bool) -> None:
        """
        Arguments:
            objects: a store that may write below the template's folder, and into no other.
            template: of the sheets' URLs.
            is_default: jobs whose request does not say so have a sheet.
        """
        self._objects, self._template = objects, template
        self._is_default = is_default
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="sheets")

    def close(self) -> None:
        """Drops the sheets that are not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin(self, claim: Claim) -> JobSheet:
        """Begins the sheet of a job's attempt, which has no tiles if none is wanted."""
        wanted = claim.request.sheet
        if not (self._is_default if wanted is None else wanted):
            return JobSheet.none()
        url = render_output(
            self._template,
            job_id=claim.job_id,
            custom_id=None,
            created_at=to_datetime(claim.created_at_s),
        )
        return JobSheet(self, url, claim.job_id, claim.attempt)

    def submit(self, write: Callable[[], None]) -> Future[None]:
        """Queues the writing of a sheet."""
        return self._pool.submit(copy_context().run, write)

    def write(self, url: str, data: bytes, job_id: str, attempt: int) -> None:
        """Writes a sheet; one of a later attempt of the job stays, and so does what is no sheet of this job.

        Raises:
            OutputError
        """

        def is_later(there: bytes) -> bool:
            found = _MARKED.search(there[:_MARK_WITHIN])
            if found is None or found[1].decode(errors="replace") != job_id:
                raise errors.OutputConflict(
                    f"{url} holds no sheet of this job and stays as it is; delete it, or set another "
                    "VIDEOQA_SHEET_OUTPUT"
                )
            return int(found[2]) > attempt

        self._objects.write(url, data, keeps=is_later, content_type="image/jpeg")

    def read(self, url: str) -> bytes:
        """Reads the sheet of an earlier job; raises OutputError."""
        return self._objects.read(url, MOST_BYTES)


class JobSheet:
    """The sheet of one attempt; used by the job's thread. It raises nothing: `end` says what went wrong."""

    def __init__(self, keeper: SheetKeeper | None, url: str, job_id: str, attempt: int) -> None:
        self._keeper, self._url = keeper, url
        self._job_id, self._attempt = job_id, attempt
        self._size = (0, 0)
        self._tiles: list[tuple[int, Image.Image]] = []
        self._stride = 1
        self._next = 0
        self._layout: Sheet | None = None
        self._writing: Future[None] | None = None
        self._error: Exception | None = None

    @classmethod
    def none(cls) -> Self:
        """Returns the sheet of a job that is to have none."""
        return cls(None, "", "", 0)

    def skip(self, count: int) -> None:
        """Leaves out frames that an earlier attempt took."""
        self._next += count

    def add(self, frames: Sequence[Pixels], total: int | None = None) -> None:
        """Adds the next frames of the result.

        Arguments:
            total: number of frames of the job, if they are not all in `frames`; it decides the tiles' size.
        """
        if self._keeper is None or self._error is not None or not frames:
            return
        try:
            if self._size == (0, 0):
                self._size = choose_tile(frames, total or len(frames))
            for pixels in frames:
                if self._next % self._stride == 0:
                    self._tiles.append((self._next, make_thumbnail(pixels, *self._size)))
                self._next += 1
                if len(self._tiles) > MOST_TILES:
                    self._stride *= 2
                    self._tiles = [tile for tile in self._tiles if tile[0] % self._stride == 0]
        except Exception as error:  # noqa: BLE001 (no sheet fails its job)
            self._note(error)

    def start_writing(self) -> None:
        """Encodes and writes the sheet in another thread; no frames come after this."""
        if self._keeper is not None and self._tiles and self._error is None:
            self._begin(self._keeper, self.write)

    def _begin(self, keeper: SheetKeeper, write: Callable[[], None]) -> None:
        try:
            self._writing = keeper.submit(write)
        except RuntimeError as error:  # this worker ends
            self._note(error)

    def write(self) -> None:
        """Encodes and writes the sheet; runs in a thread of the keeper."""
        assert self._keeper is not None  # noqa: S101 (nobody else submits it, for mypy)
        data, layout = draw_tiles(
            self._tiles, _MARK.format(job_id=self._job_id, attempt=self._attempt)
        )
        self._keeper.write(self._url, data, self._job_id, self._attempt)
        self._layout = layout

    def end(self) -> KeptSheet:
        """Waits for the sheet, for a few seconds, and returns what the result says of it."""
        if self._keeper is None:
            return KeptSheet()
        if self._writing is not None and self._error is None:
            begun = time.monotonic()
            try:
                self._writing.result(WAIT_S)
            except TimeoutError:
                waited_s = time.monotonic() - begun
                self._note(errors.OutputUnavailable(f"it was not written within {waited_s:.0f} s"))
            except Exception as error:  # noqa: BLE001 (no sheet fails its job)
                self._note(error)
        if self._error is None and self._layout is not None:
            return KeptSheet(self._url, self._layout)
        return KeptSheet(warning=describe_failure(self._error))

    def copy(self, known: Result) -> KeptSheet:
        """Copies the sheet of an earlier job with the same answers, so that each job has one of its own."""
        if self._keeper is None:
            return KeptSheet()
        if known.sheet_url is None or known.sheet is None:
            return KeptSheet(
                warning=Warn(
                    code="sheet_not_kept",
                    message='the answers are those of an earlier job that kept no sheet; `cache: "refresh"` '
                    "has the frames taken again",
                    param="sheet",
                )
            )
        self._begin(self._keeper, partial(self._write_copy, known.sheet_url, known.sheet))
        return self.end()

    def _write_copy(self, url: str, layout: Sheet) -> None:
        """Reads a sheet and writes it with the mark of this job; runs in a thread of the keeper."""
        assert self._keeper is not None  # noqa: S101 (`copy` looked, for mypy)
        data = mark_again(self._keeper.read(url), self._job_id, self._attempt)
        self._keeper.write(self._url, data, self._job_id, self._attempt)
        self._layout = layout

    def _note(self, error: Exception) -> None:
        self._error = error
        self._tiles = []
        is_expected = isinstance(error, errors.VideoQAError)
        log_events.NO_SHEET.log(log, error=error, exc_info=None if is_expected else error)


def describe_failure(error: Exception | None) -> Warn:
    """Returns the warning of a result whose sheet could not be kept."""
    why = "no frame was taken in this attempt"
    if error is not None:
        why = (
            error.message
            if isinstance(error, errors.VideoQAError)
            else redact_text(f"{type(error).__name__}: {error}")
        )
    return Warn(
        code="sheet_not_stored",
        message=f"no sheet of the frames was kept: {why:.500}",
        param="sheet",
    )


def choose_tile(frames: Sequence[Pixels], count: int) -> tuple[int, int]:
    """Returns width and height of each tile of a sheet of `count` frames, none larger than the largest frame."""
    scale = math.sqrt(FULL_SIZE_FRAMES / max(FULL_SIZE_FRAMES, count))
    side = max(LEAST_SIDE, round(MOST_SIDE * scale))
    width = max(pixels.shape[1] for pixels in frames)
    height = max(pixels.shape[0] for pixels in frames)
    shrink = min(1.0, side / max(width, height))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def draw_tiles(tiles: Sequence[tuple[int, Image.Image]], comment: str) -> tuple[bytes, Sheet]:
    """Returns the JPEG of these numbered tiles of equal size, and its layout: near a square, line by line."""
    width, height = tiles[0][1].size
    count = len(tiles)
    columns = min(count, max(1, round(math.sqrt(count * height / width * 1.5))))
    sheet = Image.new("RGB", (columns * width, math.ceil(count / columns) * height))
    for n, (_, tile) in enumerate(tiles):
        sheet.paste(tile, (n % columns * width, n // columns * height))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=QUALITY, comment=comment)
    layout = Sheet(
        columns=columns,
        tile_width=width,
        tile_height=height,
        frames=tuple(number for number, _ in tiles),
    )
    return add_thumbnail(out.getvalue(), draw_thumbnail(tiles[count // 2][1])), layout


def draw_thumbnail(tile: Image.Image) -> bytes:
    """Returns the JPEG of one tile, small: some 5 KB."""
    small = tile.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def mark_again(data: bytes, job_id: str, attempt: int) -> bytes:
    """Returns the JPEG of a sheet with the mark of another job.

    Raises:
        OutputConflict: it is no sheet.
    """
    found = _MARKED.search(data[:_MARK_WITHIN])
    if (
        found is None
        or data[:2] != b"\xff\xd8"
        or data[found.start() - 4 : found.start() - 2] != b"\xff\xfe"
    ):
        raise errors.OutputConflict("the earlier job's sheet is none any more")
    length = int.from_bytes(data[found.start() - 2 : found.start()], "big")
    mark = _MARK.format(job_id=job_id, attempt=attempt).encode()
    return (
        data[: found.start() - 2]
        + (len(mark) + 2).to_bytes(2, "big")
        + mark
        + data[found.start() - 2 + length :]
    )
