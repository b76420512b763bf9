"""AnswerCache: the same question about the same bytes is not asked twice.

An answer is known by what it was made from: each source's version, clip and kind, the frames
chosen, the questions, the generation settings, model, revision and the form of the prompt. It
is looked up once the sources are open, so whoever gets it may read them. Where the same is being
asked already, the job waits for that one instead of asking beside it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence

from videoqa import errors
from videoqa.contract import JobRequest, Result, Sampling, parse_stored
from videoqa.jobs import Ledger
from videoqa.storage import ObjectStore
from videoqa_worker.job.draft import SourceVersion

__all__ = ["AnswerCache", "KnownAlready", "WaitsForAnother", "fingerprint"]

log = logging.getLogger(__name__)

PROMPT_FORM = 1
"""Counts up when the same question would reach the model in other words or pixels."""


class KnownAlready(Exception):
    """Ends an attempt: the answers are in the store."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.job_id)
        self.result = result


class WaitsForAnother(Exception):
    """Ends an attempt: another job asks the same. The record waits for its end."""


def fingerprint(
    request: JobRequest,
    sampling: Sampling,
    versions: Sequence[SourceVersion],
    *,
    model: str,
    revision: str | None,
    form: Sequence[str | None] = (),
) -> str:
    """SHA-256 of all that decides the answer, as far as it is known.

    Arguments:
        sampling: as used, with what the model states filled in.
        form: in which the model sees the same, and is itself; see `WorkerSettings.form`.
    """
    parts = {
        "form": [PROMPT_FORM, *form],
        "model": [model, revision],
        "sources": [_named(version) for version in versions],
        "inputs": [item.model_dump(exclude={"url"}) for item in request.inputs],
        "questions": [question.model_dump() for question in request.questions],
        "sampling": sampling.model_dump(exclude_none=True),
        "summary": request.summary,
        "generation": request.generation.model_dump(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _named(version: SourceVersion) -> list[object]:
    state = () if version.exact else (version.state,)
    return [version.url, version.etag, version.version_id, version.size_bytes, *state]


def is_lasting(
    request: JobRequest, versions: Sequence[SourceVersion], revision: str | None
) -> bool:
    """Whether what has the same fingerprint has the same answer at any time."""
    drawn = request.generation.temperature > 0 and request.generation.seed is None
    return revision is not None and not drawn and all(version.exact for version in versions)


class AnswerCache:
    """Finds answers of earlier jobs. Thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        objects: ObjectStore,
        *,
        model: str,
        revision: str | None,
        ttl_s: float,
        form: Sequence[str | None] = (),
    ) -> None:
        """`ttl_s`: how long answers are found again; 0: never."""
        self._ledger = ledger
        self._objects = objects
        self._model, self._revision, self._form = model, revision, form
        self.ttl_s = ttl_s

    def key(
        self, request: JobRequest, sampling: Sampling, versions: Sequence[SourceVersion]
    ) -> str | None:
        """Under which the answers are to be found later; None: not at all."""
        if self.ttl_s == 0 or request.cache == "off":
            return None
        if not is_lasting(request, versions, self._revision):
            return None
        return self.fingerprint(request, sampling, versions)

    def fingerprint(
        self, request: JobRequest, sampling: Sampling, versions: Sequence[SourceVersion]
    ) -> str:
        return fingerprint(
            request,
            sampling,
            versions,
            model=self._model,
            revision=self._revision,
            form=self._form,
        )

    def find(self, key: str) -> Result | None:
        """The result of an earlier job, if its object is there and still says that it is."""
        try:
            url = self._ledger.find_cached(key)
            result = parse_stored(Result, self._objects.read(url)) if url else None
        except (errors.OutputError, errors.InvalidRequest, errors.RedisUnavailable) as error:
            log.info("a known answer cannot be read, the model is asked again: %s", error)
            return None
        return result if result is not None and result.cache_key == key else None
