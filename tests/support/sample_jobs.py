"""Jobs of every kind that a page shows, recorded by calls of the ledger: no worker runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videoqa.client import Client
from videoqa.contract import (
    Answer,
    Failure,
    FrameUsed,
    GenerationInForce,
    Result,
    Segment,
    SourceInfo,
    Usage,
)
from videoqa.jobs import Claim, Ledger, Progress, queue_name
from videoqa_worker.frames import make_thumbnail
from videoqa_worker.job.sheet import draw_tiles

__all__ = ["HOSTILE", "LONG_WORD", "SampleJobs", "paint"]

HOSTILE = (
    '<script>alert("x")</script>\'" &amp; \u202egnp.exe {{ 7*7 }} <img src=x onerror=alert(1)>'
)
LONG_WORD = "w" * 30_000
Paint = Callable[[int], npt.NDArray[np.uint8]]


def paint(number: int) -> npt.NDArray[np.uint8]:
    """Returns a frame whose colours tell its number."""
    y, x = np.mgrid[0:180, 0:320]
    found = np.stack([(x + 40 * number) % 256, (y * 2 + 90 * number) % 256, (x + y) % 256], axis=-1)
    return found.astype(np.uint8)


@dataclass
class SampleJobs:
    """Makes jobs, and moves them on."""

    client: Client
    ledger: Ledger
    sheets: Path
    """Folder of `sheet_output`, which ends in {job_id}.jpg."""
    paint: Paint = paint

    def __post_init__(self) -> None:
        self._tokens = count()

    def submit(self, question: str = "What is it?", **fields: Any) -> str:
        """Submits a job."""
        asked = {"inputs": ["https://a.org/parade.mp4?token=secret"], "questions": [question]}
        return self.client.submit(asked | fields).id

    def begin(self, job_id: str, worker: str = "gpu-1:1200") -> Claim:
        """Claims this job, which has to be the next one of its queue."""
        job = self.client.get(job_id)
        queue = queue_name(self.ledger.keys.prefix, job.model, job.priority)
        token = f"t{next(self._tokens)}"
        claim = self.ledger.claim([queue], worker=worker, lease_s=600, token=token).claim
        assert claim is not None
        assert claim.job_id == job_id, "other jobs wait before it"
        return claim

    def pass_stages(self, claim: Claim, *stages: str, each_s: float = 0.0) -> None:
        """Reports stages, and stays in each for a while."""
        for stage in stages or ("fetching", "sampling", "generating"):
            self.ledger.progress(claim.job_id, claim.token, Progress(stage))  # type: ignore[arg-type]
            time.sleep(each_s)

    def write(self, claim: Claim, *pieces: str, question_id: str = "q1") -> None:
        """Streams pieces of an answer."""
        for text in pieces:
            progress = Progress("generating", question_id=question_id, text=text)
            assert self.ledger.progress(claim.job_id, claim.token, progress) == "ok"

    def fail(self, claim: Claim, code: str = "model_error", *, delay_s: float | None = 0.0) -> None:
        """Fails the attempt; with a delay another one follows."""
        failure = Failure(
            code=code, message="the model produced NaN or infinite logits; try another dtype",
            stage="generating", attempt=claim.attempt, retryable=delay_s is not None,
        )  # fmt: skip
        self.ledger.fail(claim.job_id, claim.token, failure, delay_s=delay_s or 0.0)

    def succeed(
        self,
        claim: Claim,
        *texts: str,
        frames: int = 8,
        segments: int = 0,
        has_sheet: bool = True,
        sources: Sequence[SourceInfo] = (),
        **fields: Any,
    ) -> Result:
        """Ends the job with answers, frames and their sheet."""
        questions = claim.request.questions
        texts = texts or ("A parade.",)

        def answer(number: int, text: str) -> Answer:
            return Answer(
                question_id=questions[number].id, question=questions[number].text, text=text, finish_reason="stop",
                input_tokens=1200, output_tokens=20, first_token_s=0.21,
            )  # fmt: skip

        def frame(number: int) -> FrameUsed:
            return FrameUsed(
                input=0, index=number * 25, pts_s=number * 1.04, asked_s=number * 1.0, exact=number % 5 != 3
            )  # fmt: skip

        parts = tuple(
            Segment(
                number=n, start=n * 4.0, end=n * 4.0 + 4,
                answers=(answer(0, texts[n % len(texts)]),), frames=(frame(n * 4),),
            )
            for n in range(segments)
        )  # fmt: skip
        used = () if segments else tuple(map(frame, range(frames)))
        layout, url = None, None
        if has_sheet:
            shown = range(0, segments or frames, max(1, -(-(segments or frames) // 128)))
            tiles = [(n, make_thumbnail(self.paint(n), 226, 127)) for n in shown]
            data, layout = draw_tiles(tiles, f"videoqa sheet of {claim.job_id} attempt 1")
            self.sheets.mkdir(parents=True, exist_ok=True)
            path = self.sheets / f"{claim.job_id}.jpg"
            path.write_bytes(data)
            url = path.as_uri()
        now = datetime.now(UTC)
        result = Result(
            job_id=claim.job_id,
            answers=() if segments else tuple(answer(n, text) for n, text in enumerate(texts)),
            frames=used, segments=parts, sources=tuple(sources), model="demo", model_revision="0123456789abcdef" * 2,
            sampling=claim.request.sampling, generation=GenerationInForce.of(claim.request.generation),
            usage=Usage(
                input_tokens=1200, output_tokens=20, frames=frames, bytes_fetched=1_055_736, queued_s=1.2,
                fetching_s=0.4, sampling_s=0.6, generating_s=2.2, storing_s=0.1,
            ),
            attempt=claim.attempt, created_at=now - timedelta(seconds=9), finished_at=now,
            sheet=layout, sheet_url=url, **fields,
        )  # fmt: skip
        result = result.model_copy(update={"created_at": self.client.get(claim.job_id).created_at})
        found = self.ledger.finish(
            claim.job_id, claim.token, result=result, result_url="s3://b/r.json"
        )
        assert found in ("ok", "woken")
        return result

    def run(self, question: str = "What is it?", *texts: str, **fields: Any) -> str:
        """Submits a job, and ends it at once."""
        own = {"frames", "segments", "has_sheet", "sources", "warnings"}
        asked = {name: value for name, value in fields.items() if name not in own}
        job_id = self.submit(question, **asked)
        claim = self.begin(job_id)
        self.pass_stages(claim)
        self.succeed(claim, *texts, **{name: fields[name] for name in fields.keys() & own})
        return job_id
