"""CPU time and memory of an idle worker, its decoders and its Redis.

    python benchmarks/queue/idle.py [--seconds 60] [--json]

A production worker with the bundled model and its own Redis (`videoqa up` without the gateway), which
has answered about a clip before; then nobody asks anything for so long. Share of a core: user and
system time of a process by the time that passed. Goal: the worker and its decoders below 0.5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.processes import measure_tree

SETTLE_S = 10.0
"""Time after the answer in which a worker may tidy up."""


def run(seconds: float) -> dict[str, Any]:
    from videoqa_worker.embedded import Stack
    from videoqa_worker.embedded.stack import SAMPLE

    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), dict(os.environ)) as stack:
        stack.wait_until_ready(lambda state: None)
        with stack.client() as client:
            job = client.submit(inputs=[SAMPLE.as_uri()], questions=["What is moving?"])
            client.wait(job.id, timeout_s=600)
        time.sleep(SETTLE_S)
        pids = {"worker": stack.worker.pid, "redis": stack.redis.process.pid}
        before = {name: measure_tree(pid) for name, pid in pids.items()}
        begun = time.monotonic()
        time.sleep(seconds)
        passed_s = time.monotonic() - begun
        after = {name: measure_tree(pid) for name, pid in pids.items()}
    shares: dict[str, float] = {}
    memory: dict[str, int] = {}
    for name, uses in after.items():
        then = {use.pid: use.cpu_s for use in before[name]}
        for number, use in enumerate(uses):
            label = name if number == 0 else f"decoder {number}"
            shares[label] = (use.cpu_s - then.get(use.pid, 0.0)) / passed_s
            memory[label] = round(use.resident_bytes / 1e6)
    mine = sum(share for label, share in shares.items() if label != "redis")
    return {
        "seconds": round(passed_s, 1),
        "worker_and_decoders_percent_of_a_core": round(100 * mine, 3),
        "percent_of_a_core": {label: round(100 * share, 3) for label, share in shares.items()},
        "resident_mb": memory,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    found = run(args.seconds)
    if args.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:40} {value}")


if __name__ == "__main__":
    main()
