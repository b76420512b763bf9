"""The Redis commands and socket reads that a job costs, from its submission to its result."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import redis
from support.redis import read_commands
from support.scenes import Scene, write_clip
from support.stack import WorkerProcess

from videoqa.client import Client

TRIES = 60
"""On a busy machine most jobs last longer than the second between two heartbeats."""


@pytest.mark.parametrize(
    ("kind", "most_commands", "most_reads"),
    [("waited for", 65, 12), ("streamed", 71, 14), ("cached", 61, 12)],
)
def test_a_job_costs_few_commands_and_reads(
    worker: WorkerProcess,
    stack_client: Client,
    tmp_path: Path,
    kind: str,
    most_commands: int,
    most_reads: int,
) -> None:
    """The least of a few jobs: rounds, heartbeats and announcements, which are not theirs, come between some."""
    clip = write_clip(Scene.single("green", "triangle", "down"), tmp_path / "clip.mp4").as_uri()
    server = redis.Redis.from_url(stack_client.settings.redis_url, decode_responses=True)

    def ask(number: int) -> None:
        question = "What color is it?" if kind == "cached" else f"What color is it, {number}?"
        job = stack_client.submit(inputs=[clip], questions=[question], stream=kind == "streamed")
        if kind == "streamed":
            assert [event for event in stack_client.events(job.id, timeout_s=60) if event.text]
        else:
            stack_client.wait(job.id, timeout_s=60)
        assert stack_client.result(job.id).cached == (kind == "cached" and number > 0)

    def read() -> tuple[int, int]:
        commands = read_commands(server).total()
        return commands, cast("dict[str, int]", server.info("stats"))["total_reads_processed"]

    ask(0)  # everything is connected, and the scripts are loaded
    found: list[tuple[int, int]] = []
    least = (most_commands + 1, most_reads + 1)
    for number in range(1, TRIES):
        server.config_resetstat()
        ask(number)
        commands, reads = read()
        found.append((commands, reads - 2))  # two of `read` itself
        least = min(least[0], commands), min(least[1], reads - 2)
        if least[0] <= most_commands and least[1] <= most_reads:
            break
    assert (least[0] <= most_commands, least[1] <= most_reads) == (True, True), found
