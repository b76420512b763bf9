"""Row 16: sources that never end a read, among good ones. The job's deadline frees its slot within 5 s.

    python tests/faults/stores/hanging_source.py [--jobs 50] [--seed 1] [--json]

`--jobs`: so many that hang, and four times as many good ones. `wrong` counts those that ended otherwise
or later.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faults.rig import Rig
from faults.script import main
from faults.tally import Tally

TIMEOUT_S = 2.0
LATE_S = 5.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: 1000000\r\n\r\n"


class Hanging:
    """Sends a beginning, and holds the connection."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/clip.mp4"
        self._held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                near.sendall(HEAD)
                self._held.append(near)

    def close(self) -> None:
        for end in (self._server, *self._held):
            end.close()


def run(jobs: int, seed: int) -> Tally:
    environ = {"VIDEOQA_PRIVATE_ADDRESSES": "true", "VIDEOQA_SOURCE_READ_TIMEOUT_S": "60"}
    with Rig("16 source hangs", seed, environ=environ) as rig:
        rig.start(1)
        hanging = Hanging()
        begun = time.monotonic()
        bad = []
        for _ in range(jobs):
            fields = {"questions": ["What?"], "timeout_s": TIMEOUT_S, "max_attempts": 1}
            bad.append(rig.client.submit(inputs=[hanging.url], **fields).id)
            rig.submit(4)
        late_s = []
        for job_id in bad:
            job = rig.client.wait(job_id, timeout_s=120)
            timely = job.failure is not None and job.failure.code == "job_timeout"
            assert job.finished_at is not None
            assert job.started_at is not None
            late_s.append((job.finished_at - job.started_at).total_seconds() - TIMEOUT_S)
            rig.tally.wrong += not timely or late_s[-1] > LATE_S
        rig.drain()
        hanging.close()
        rig.tally.seconds = time.monotonic() - begun
        rig.tally.notes["latest_s"] = round(max(late_s), 2)
        return rig.settle()


if __name__ == "__main__":
    main(run, jobs=50, about=__doc__)
