"""Shelf: where the results of an archive lie, and what is there already.

    OUTPUT/run.json                what is asked of each video
    OUTPUT/results/CUSTOM_ID.json  the Result of each video that is answered
    OUTPUT/failed/CUSTOM_ID.json   the Failure of each that is not
    OUTPUT/results.jsonl           a line a row, when the run is over

OUTPUT is a folder or an `s3://bucket/prefix`. These objects alone say where a run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from videoqa import errors
from videoqa.arguments import as_url
from videoqa.job import Job, Result
from videoqa.objects import ObjectStore, object_name
from videoqa.records import read

__all__ = ["Shelf"]


class Shelf:
    """The objects of one output place."""

    def __init__(self, output: str, objects: ObjectStore) -> None:
        self.url = as_url(output).rstrip("/")
        self._objects = objects

    def claim(self, defaults: Mapping[str, Any]) -> None:
        """Says what this place is for.

        Raises:
            InvalidRequest: it holds answers to another question.
        """
        text = json.dumps(defaults, sort_keys=True, indent=2)
        try:
            there = self._objects.read(f"{self.url}/run.json").decode()
        except errors.OutputNotFound:
            self._objects.write(f"{self.url}/run.json", text.encode())
            return
        if there != text:
            raise errors.InvalidRequest(
                f"{self.url} holds results of a run that asked {there}; take another --output, or ask "
                "the same to go on with it",
                param="output",
            )

    def done(self, kind: str) -> set[bytes]:
        """Digests of the names that lie in `results` or `failed`."""
        found = self._objects.list(f"{self.url}/{kind}/")
        return {digest(url.rpartition("/")[2]) for url in found}

    def result_url(self, custom_id: str) -> str:
        return f"{self.url}/results/{file_name(custom_id)}"

    def put_result(self, custom_id: str, result: Result) -> None:
        self._objects.write(self.result_url(custom_id), result.model_dump_json(indent=2).encode())

    def put_failure(self, custom_id: str, job: Job) -> None:
        url = f"{self.url}/failed/{file_name(custom_id)}"
        self._objects.write(url, job.model_dump_json(indent=2).encode())

    def forget_failure(self, custom_id: str) -> None:
        self._objects.delete(f"{self.url}/failed/{file_name(custom_id)}")

    def line(self, custom_id: str) -> str | None:
        """What is known of a row, as one line of JSON."""
        try:
            result = read(Result, self._objects.read(self.result_url(custom_id)))
        except errors.OutputNotFound:
            return self._failed_line(custom_id)
        answers = {answer.question_id: answer.text for answer in result.answers}
        return json.dumps(
            {
                "custom_id": custom_id,
                "state": "succeeded",
                "answers": answers,
                "frames": [round(frame.pts_s, 3) for frame in result.frames],
                "job_id": result.job_id,
                "result_url": self.result_url(custom_id),
            },
            ensure_ascii=False,
        )

    def _failed_line(self, custom_id: str) -> str | None:
        try:
            job = read(Job, self._objects.read(f"{self.url}/failed/{file_name(custom_id)}"))
        except errors.OutputNotFound:
            return None
        error = job.failure.model_dump(exclude_none=True) if job.failure else None
        line = {"custom_id": custom_id, "state": job.state, "error": error, "job_id": job.id}
        return json.dumps(line, ensure_ascii=False)

    def write_lines(self, lines: Iterator[str]) -> str:
        """All rows in one object; returns its URL."""
        url = f"{self.url}/results.jsonl"
        data = "".join(f"{line}\n" for line in lines).encode()
        self._objects.write(url, data, content_type="application/jsonl")
        return url


def file_name(custom_id: str) -> str:
    return f"{object_name(custom_id)}.json"


def digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8).digest()
