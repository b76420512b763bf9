"""Chats of tests: bodies, callers that hang up, and a worker that is played through the ledger."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from support.processes import wait_until
from videoqa.client import Client
from videoqa.contract import Job
from videoqa.jobs import Claim, Ledger, Progress

__all__ = [
    "CLIP", "IMAGE", "PATH", "PICTURE", "TEXT", "VIDEO", "WHY", "ask", "dial", "list_jobs", "say", "wait_for_job",
    "worker",
]  # fmt: skip

CLIP, PICTURE = "https://videos.example.org/a.mp4", "https://videos.example.org/b.jpg"
VIDEO: dict[str, Any] = {"type": "video_url", "video_url": {"url": CLIP}}
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": PICTURE}}
TEXT: dict[str, Any] = {"type": "text", "text": "What is it?"}
WHY: dict[str, Any] = {"type": "text", "text": "Why?"}
PATH = "/v1/chat/completions"


def ask(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Makes the body of a chat; without `model`, so that the jobs are those of the default queue."""
    return {"messages": [{"role": "user", "content": list(parts) or [VIDEO, TEXT]}], **fields}


def list_jobs(client: Client) -> list[Job]:
    """Lists all jobs with their requests, the newest first."""
    return list(client.list(include_request=True).jobs)


def wait_for_job(client: Client, state: str = "queued", count: int = 1) -> Job:
    """Returns the newest of `count` jobs, once it is in this state."""

    def find() -> Job | None:
        jobs = list_jobs(client)
        return jobs[0] if len(jobs) == count and jobs[0].state == state else None

    return wait_until(find)


@contextmanager
def worker(client: Client, play: Callable[[Job], None], count: int = 1) -> Iterator[None]:
    """Plays a worker in a thread, once there are `count` jobs, for the newest one."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            play(wait_for_job(client, count=count))
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(30)
    assert not caught, caught


def dial(http: httpx.Client, body: dict[str, Any], **headers: str) -> socket.socket:
    """Sends a chat, and returns the connection without reading the answer: closing it is hanging up."""
    content = json.dumps(body).encode()
    fields = {
        "host": "gateway", "authorization": http.headers["authorization"],
        "content-type": "application/json", "content-length": str(len(content)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }  # fmt: skip
    head = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    found = socket.create_connection((http.base_url.host, http.base_url.port), timeout=30)
    found.sendall("\r\n".join([*head, "", ""]).encode() + content)
    return found


def say(ledger: Ledger, claim: Claim, *texts: str) -> None:
    """Streams pieces of the answer, as a worker does."""
    for text in texts:
        progress = Progress("generating", question_id="q1", text=text)
        assert ledger.progress(claim.job_id, claim.token, progress) == "ok"
