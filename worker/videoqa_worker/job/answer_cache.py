"""AnswerCache: finds the answers of earlier jobs, so that no question about the same bytes is asked twice.

An answer's key is made of all that decides it: each source's version, clip and kind, the frames
chosen, the questions, the generation settings, model, revision and the form of the prompt. It
is looked up once the sources are open, so whoever gets it may read them. If another job asks the
same at that time, this one waits for it instead of asking beside it.

An answer is served only from an object with the very bytes that a worker stored, and only to the tenant
whose job it was, unless the fleet shares its answers. Equal questions that meet in the engine share a run
across tenants all the same: each has opened the same bytes and asked the same, and gets what it would
have got alone, only sooner.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from videoqa import errors
from videoqa.contract import JobRequest, Result, Sampling, parse_stored
from videoqa.jobs import CachedObject
from videoqa.storage import ObjectStore
from videoqa_worker import log_events
from videoqa_worker.job.claims import HeldJob
from videoqa_worker.sources import SourceVersion

__all__ = ["AnswerCache", "CacheKey", "Lookup", "compute_fingerprint"]

log = logging.getLogger(__name__)

PROMPT_FORM = 3
"""Counts up when the same question would reach the model in other words or pixels."""


@dataclass(frozen=True)
class CacheKey:
    """Key of the answers to a request about certain versions of its sources."""

    fingerprint: str
    """SHA-256 of all that decides the answers, as far as it is known."""
    lookup: str | None
    """The fingerprint, where later jobs may find the answers by it."""


@dataclass(frozen=True)
class Lookup:
    """Answers that exist already, or are being asked for."""

    known: Result | None = None
    """The result of an earlier job."""
    must_follow: bool = False
    """Another job asks the same: this one is queued behind it, and its attempt is over."""


def compute_fingerprint(
    request: JobRequest,
    sampling: Sampling,
    versions: Sequence[SourceVersion],
    *,
    model: str,
    revision: str | None,
    answer_settings: Sequence[str | None] = (),
    prompt_form: str | None = None,
    per_tenant: bool = True,
) -> str:
    """Returns the SHA-256 of all that decides the answers, as far as it is known.

    Arguments:
        sampling: as used, with what the model states filled in.
        answer_settings: see `WorkerSettings.answer_settings`.
        prompt_form: digest of the form in which this worker's model gets media, see `Answering.prompt_form`.
        per_tenant: the same question of another tenant has another fingerprint.
    """
    parts = {
        "scope": [request.tenant] if per_tenant else "fleet",
        "form": [PROMPT_FORM, prompt_form, *answer_settings],
        "model": [model, revision],
        "sources": [_name(version) for version in versions],
        "inputs": [item.model_dump(exclude={"url"}) for item in request.inputs],
        "questions": [each.model_dump(exclude={"answer"}) for each in request.full_questions],
        "forms": _list_forms(request),
        "sampling": sampling.model_dump(exclude_none=True),
        "summary": request.summary and [request.summary, request.system],
        "generation": request.generation.model_dump(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _list_forms(request: JobRequest) -> list[object]:
    forms = [request.get_form(question) for question in request.questions]
    return [form and form.model_dump() for form in forms]


def _name(version: SourceVersion) -> list[object]:
    state = () if version.is_exact else (version.state,)
    return [version.url, version.etag, version.version_id, version.size_bytes, *state]


def is_lasting(
    request: JobRequest, versions: Sequence[SourceVersion], revision: str | None
) -> bool:
    """Tells if equal fingerprints mean equal answers at any time."""
    drawn = request.generation.temperature > 0 and request.generation.seed is None
    return revision is not None and not drawn and all(version.is_exact for version in versions)


class AnswerCache:
    """Finds answers of earlier jobs. Thread-safe."""

    def __init__(
        self,
        objects: ObjectStore,
        *,
        model: str,
        revision: str | None,
        ttl_s: float,
        answer_settings: Sequence[str | None] = (),
        prompt_form: str | None = None,
        per_tenant: bool = True,
    ) -> None:
        """
        Arguments:
            ttl_s: how long answers are found again; 0: never.
            per_tenant: a tenant finds the answers of its own jobs only.
        """
        self._objects = objects
        self.model, self.revision = model, revision
        self._answer_settings, self._prompt_form = answer_settings, prompt_form
        self._per_tenant = per_tenant
        self.ttl_s = ttl_s

    def make_key(
        self, request: JobRequest, sampling: Sampling, versions: Sequence[SourceVersion]
    ) -> CacheKey:
        """Makes the key of the answers to this request; without `lookup` where they are not to be found again."""
        fingerprint = compute_fingerprint(
            request,
            sampling,
            versions,
            model=self.model,
            revision=self.revision,
            answer_settings=self._answer_settings,
            prompt_form=self._prompt_form,
            per_tenant=self._per_tenant,
        )
        is_kept = self.ttl_s > 0 and request.cache != "off"
        is_found = is_kept and is_lasting(request, versions, self.revision)
        return CacheKey(fingerprint, fingerprint if is_found else None)

    def look_up(self, job: HeldJob, key: str | None) -> Lookup:
        """Looks for answers with this key; if there are none, this job is the one that asks."""
        if key is None or job.claim.request.cache != "use":
            return Lookup()
        found = job.lead(key)
        if isinstance(found, CachedObject):
            known = self._read(found)
            if known is not None:
                return Lookup(known=known)
            found = job.lead(key, asks_anyway=True)
        return Lookup(must_follow=found == "follow")

    def _read(self, cached: CachedObject) -> Result | None:
        """Returns the result of an earlier job, if its object is there as it was stored."""
        try:
            data = self._objects.read(cached.url, cached.size_bytes + 1)
            if cached.holds(data):
                return parse_stored(Result, data)
            log_events.CACHED_ANSWER_CHANGED.log(log, store=cached.url)
        except (errors.OutputError, errors.InvalidRequest) as error:
            log_events.CACHED_ANSWER_UNREADABLE.log(log, error=error)
        return None
