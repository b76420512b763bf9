"""Cost of an archive's rows to `videoqa caption`: CPU time, memory and requests, for new rows and for done ones.

    python benchmarks/queue/archive.py [--rows 100000] [--slots 64] [--json]

One private Redis. A process of its own stands in for the fleet: it announces one worker, claims the jobs by
the ledger's scripts, writes a real result object for each, and ends it at once, so that nothing but the
producer and Redis take time. The producer is a process of its own, and runs three times into the same
OUTPUT, a folder: all rows are new; all are done; all are done and the index is lost. Measured for each: CPU
time of that process, its peak memory above that of a run of 100 rows, wall time, objects read, and
listings of OUTPUT.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("producer", "worker")]

ANSWER = "A red circle moves from left to right, and a blue square stays where it is. " * 2
FRAMES = 8
URL = "s3://archive/2026/{:07}.mp4"


# -- the producer


def caption(rows: Path, output: Path, url: str) -> dict[str, Any]:
    """One run of `videoqa caption`, measured."""
    from videoqa.bulk import Manifest, Options, OutputDir, run_manifest
    from videoqa.client import Client
    from videoqa.settings import Settings
    from videoqa.storage import ObjectStore

    class Counting(ObjectStore):
        """Counts what a run asks of OUTPUT."""

        reads = listings = 0

        def read_version(self, url: str) -> tuple[bytes, str]:
            self.reads += "/results/" in url or "/failed/" in url
            return super().read_version(url)

        def list_versions(self, prefix: str) -> Iterator[tuple[str, str]]:
            self.listings += 1
            return super().list_versions(prefix)

    store = Counting()
    defaults = {"questions": ["What is happening in this video?"], "priority": "bulk"}
    before_s, begun_s = time.process_time(), time.monotonic()
    with (
        Manifest([str(rows)], defaults=defaults, store=store) as manifest,
        Client(settings=Settings(redis_url=url)) as client,
    ):
        counts = run_manifest(client, manifest, OutputDir(str(output), store), Options())
    return {
        "rows": counts.total,
        "asked": counts.done,
        "done_before": counts.skipped,
        "failed": counts.failed,
        "cpu_s": round(time.process_time() - before_s, 2),
        "wall_s": round(time.monotonic() - begun_s, 2),
        "peak_mb": round(read_peak_bytes() / 1e6, 1),
        "objects_read": store.reads,
        "listings": store.listings,
    }


def read_peak_bytes() -> int:
    """Peak memory of this process; ru_maxrss would begin with that of whoever started it."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


# -- the fleet


def work(url: str, slots: int) -> None:
    """Claims bulk jobs and ends them at once, until it is killed."""
    import redis

    from videoqa.contract import WorkerInfo
    from videoqa.jobs import Ledger, queue_name
    from videoqa.storage import ObjectStore
    from videoqa_worker.job.result_object import build_url

    plain = redis.Redis.from_url(url, decode_responses=True)
    ledger, objects = Ledger(plain, url=url), ObjectStore()
    queue = queue_name("videoqa", None, "bulk")
    announced_s = 0.0
    number = 0
    while True:
        if time.monotonic() - announced_s > 5:
            announced_s, now = time.monotonic(), datetime.now(UTC)
            info = WorkerInfo(
                id="fake", model="fake", queues=(queue,), slots=slots, running=0, ready=True,
                started_at=now, seen_at=now,
            )  # fmt: skip
            ledger.announce(info)
        number += 1
        claim = ledger.claim([queue], worker="fake", lease_s=60, token=f"t{number}").claim
        if claim is None:
            plain.delete(queue)  # the broker's messages, which nobody else takes
            time.sleep(0.01)
            continue
        result = make_result(claim)
        created_at = datetime.fromtimestamp(claim.created_at_s, UTC)
        place = build_url(str(claim.request.output), claim.job_id, claim.request, created_at)
        objects.write(place, result.model_dump_json(indent=2).encode())
        ledger.finish(claim.job_id, claim.token, result=result, result_url=place)


def make_result(claim: Any) -> Any:
    from videoqa.contract import Answer, FrameUsed, GenerationInForce, Result, SourceInfo, Usage

    now = datetime.now(UTC)
    return Result(
        job_id=claim.job_id,
        answers=tuple(
            Answer(question_id=question.id, question=question.text, text=ANSWER,
                   finish_reason="stop", input_tokens=5000, output_tokens=40)
            for question in claim.request.questions
        ),
        frames=tuple(FrameUsed(input=0, index=n, pts_s=n, asked_s=n) for n in range(FRAMES)),
        sources=(SourceInfo(url=claim.request.inputs[0].url, kind="video", size_bytes=1 << 20,
                            width=640, height=360),),
        model="fake", sampling=claim.request.sampling, generation=GenerationInForce.of(claim.request.generation),
        usage=Usage(), attempt=claim.attempt, created_at=now, finished_at=now,
        custom_id=claim.request.custom_id, metadata=claim.request.metadata,
    )  # fmt: skip


# -- the measurement


@contextmanager
def running(*args: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, __file__, *args])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def write_rows(path: Path, count: int) -> Path:
    with path.open("w") as file:
        for n in range(count):
            file.write(URL.format(n) + "\n")
    return path


def run(count: int, slots: int, note: Callable[[str], None]) -> dict[str, Any]:
    from videoqa_worker.embedded.redis_server import RedisServer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = write_rows(folder / "few.txt", 100), write_rows(folder / "many.txt", count)
        server = RedisServer(folder / "redis")
        found: dict[str, Any] = {}
        try:
            with running("--work", server.url, "--slots", str(slots)):
                for title, rows, out in (
                    ("few", few, "small"),
                    ("new", many, "out"),
                    ("done", many, "out"),
                    ("without index", many, "out"),
                ):
                    note(f"{title}: {rows.name}")
                    if title == "without index":
                        (folder / out / "index.jsonl").unlink()
                    command = ["--caption", str(rows), str(folder / out), server.url]
                    done = subprocess.run(
                        [sys.executable, __file__, *command], check=True, stdout=subprocess.PIPE
                    )
                    found[title] = json.loads(done.stdout)
                    note(json.dumps(found[title]))
            lines = (folder / "out" / "results.jsonl").read_bytes().count(b"\n")
            index_mb = (folder / "out" / "index.jsonl").stat().st_size / 1e6
        finally:
            server.stop()
    few_mb = found.pop("few")["peak_mb"]
    for each in found.values():
        each["more_memory_mb"] = round(each["peak_mb"] - few_mb, 1)
    assert lines == count, lines
    return {
        **found,
        "lines": lines,
        "index_mb": round(index_mb, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--slots", type=int, default=64, help="slots that the worker announces")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--caption", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.slots)
    elif args.caption:
        rows, output, url = args.caption
        print(json.dumps(caption(Path(rows), Path(output), url)))
    else:
        found = run(args.rows, args.slots, lambda text: print(text, file=sys.stderr))
        if args.json:
            print(json.dumps(found))
        else:
            for title, value in found.items():
                print(f"{title:16} {json.dumps(value)}")


if __name__ == "__main__":
    main()
