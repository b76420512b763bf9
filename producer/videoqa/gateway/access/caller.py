"""The caller of a request: the key that it showed, and the client that reaches this key's jobs only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Annotated, Any, Self, cast

from fastapi import Depends, Request

from videoqa.async_client import AsyncClient
from videoqa.contract import (
    BulkAction,
    BulkKind,
    FilterKeywords,
    Job,
    JobRequest,
    is_file_id,
    redact_url,
)
from videoqa.errors import InvalidRequest, OperatorOnly
from videoqa.gateway.access.audit import make_fields
from videoqa.gateway.access.input_scope import is_inside
from videoqa.gateway.access.keys import ApiKey, KeyNotFound, Role, WrongKey
from videoqa.gateway.access.rate_limits import LimitState, describe_policies, describe_states
from videoqa.gateway.access.sessions import COOKIE
from videoqa.gateway.files.files import find_ids
from videoqa.gateway.http.middleware import find_request_id
from videoqa.gateway.http.origins import check_origin
from videoqa.gateway.http.problems import HttpError
from videoqa.gateway.resources import Resources
from videoqa.jobs import DAY_S, KeyQuota, seconds_left_of_day

__all__ = [
    "Administrator",
    "Caller",
    "FleetReader",
    "Needs",
    "NotingAdministrator",
    "NotingOperator",
    "Operator",
    "Reader",
    "Submitter",
]


@dataclass(frozen=True)
class Caller:
    """The key of a request, a client of its tenant, and the calls that the key limits."""

    key: ApiKey
    quota: KeyQuota
    client: AsyncClient
    request: Request
    resources: Resources

    @classmethod
    async def find(cls, key_id: str, resources: Resources) -> Self | None:
        """Returns the caller whose key has this id, for what goes on beside requests; None: it is no longer valid."""
        if key_id == resources.open_key.id:
            if not resources.settings.gateway_open:
                return None
            return cls.beside_requests(resources.open_key, resources)
        try:
            key = await resources.run(resources.keys.get, key_id)
        except KeyNotFound:
            return None
        return None if key.is_over(datetime.now(UTC)) else cls.beside_requests(key, resources)

    @classmethod
    def beside_requests(cls, key: ApiKey, resources: Resources) -> Self:
        """Makes the caller of what goes on for a key after its request was answered."""
        nobody = Request(
            {"type": "http", "method": "POST", "path": "", "headers": [], "query_string": b"", "state": {}}
        )  # fmt: skip
        return cls._make(key, nobody, resources)

    @classmethod
    def _make(cls, key: ApiKey, request: Request, resources: Resources) -> Self:
        quota = _make_quota(key)
        client = resources.find_client(key.tenant)._for_key(quota)
        return cls(key, quota, client, request, resources)

    async def note(self, *, on: str, detail: str) -> None:
        """Writes a change into the audit log, before it is made.

        Arguments:
            on: id of what is changed, or its name.
        """
        route = self.request.scope.get("route")
        fields = make_fields(
            self.key.id,
            f"{self.request.method} {getattr(route, 'path', self.request.url.path)}",
            on=on,
            request_id=find_request_id(self.request.scope),
            detail=detail,
        )
        await self.resources.run(self.resources.audit.write, fields)

    async def submit(self, request: JobRequest, where: str = "") -> Job:
        """Submits a job and counts it for its key; each submit of a route goes through here.

        Raises:
            HttpError: the key may not have an input read.
            RateLimited: the key may submit no job now.
        """
        checked = await self.check(request, where)
        job = await self._note_quota(self.client.submit(checked))
        await self.resources.files.use(find_ids(request), job.id)
        return job

    async def check(self, request: JobRequest, where: str = "") -> JobRequest:
        """Returns the request with the key's output and webhook, and with the URLs of the files that it names.

        Raises:
            HttpError: the key may not have an input read (403, since another key may send the request), or a file is
                not its tenant's. It was parsed before, so that the URL that is checked is the one that a worker reads.
        """
        for n, one in enumerate(request.inputs):
            if not is_file_id(one.url) and not is_inside(one.url, self.key.inputs):
                raise HttpError(
                    403,
                    "input_not_allowed",
                    f"inputs.{n}.url: got {redact_url(one.url)!r:.300}, expected a URL below one of "
                    f"{', '.join(self.key.inputs):.500}, which this API key may read; ask an administrator for "
                    "another",
                    param=f"{where}inputs.{n}.url",
                )
        request = await self.resources.files.resolve(request, self.key.tenant, where)
        added: dict[str, Any] = {}
        if self.key.output is not None:
            added["output"] = self.key.output
        if request.webhook is None and self.key.webhook is not None:
            added["webhook"] = self.key.webhook
        checked = request.model_copy(update=added) if added else request
        self._check_webhook(checked, where)
        return checked

    def _check_webhook(self, request: JobRequest, where: str) -> None:
        """Refuses a webhook that no gateway would call, so far as its URL tells; its address is checked at the call."""
        is_plain = request.webhook is not None and request.webhook.url.lower().startswith("http://")
        if is_plain and not self.resources.settings.webhook_networks:
            raise InvalidRequest(
                "webhook.url: got http://, expected https://; an operator may allow plain HTTP into private networks "
                "by VIDEOQA_WEBHOOK_NETWORKS",
                param=f"{where}webhook.url",
            )

    async def retry(self, job_id: str) -> Job:
        """Queues a job again, which counts as a new one, and keeps its files."""
        await self._keep_files(await self.client.get(job_id, include_request=True))
        return await self._note_quota(self.client.retry(job_id))

    async def _keep_files(self, job: Job) -> None:
        inputs = () if job.request is None else job.request.inputs
        ids = [each for one in inputs for each in self.resources.files.urls.find(one.url)]
        await self.resources.files.use(tuple(ids), job.id)

    async def start_bulk(
        self,
        action: BulkKind,
        which: FilterKeywords,
        *,
        expected: int | None = None,
        cut_off: datetime | None = None,
        key: str | None = None,
    ) -> BulkAction:
        """Begins a bulk action, which `BulkRunner` carries out for this key; each is in the audit log, with its count.

        Raises:
            InvalidRequest: there is no filter, or a purge was not confirmed by a number.
            CountChanged: more jobs match than were confirmed.
        """
        preview = await self.client.preview_bulk(action, cut_off=cut_off, **which)
        fields = make_fields(
            self.key.id,
            f"bulk {action}",
            request_id=find_request_id(self.request.scope),
            detail=f"{preview.count.text} jobs with {preview.filter.words}",
        )
        await self.resources.run(self.resources.audit.write, fields)
        return await self.client.start_bulk(
            action, expected=expected, cut_off=preview.cut_off, key=key, **which
        )

    async def advance_bulk(self, bulk_id: str, holder: str) -> BulkAction:
        """Changes the next jobs of a bulk action of this key, as `retry` and the routes of single jobs do."""
        loop = asyncio.get_running_loop()

        async def keep(job_ids: Sequence[str]) -> None:
            for job in await self.client.get_many(job_ids, include_request=True):
                if job is not None:
                    await self._keep_files(job)

        def keep_from_thread(job_ids: Sequence[str]) -> None:
            asyncio.run_coroutine_threadsafe(keep(job_ids), loop).result()

        return await self.client._advance_bulk(bulk_id, holder, keep_from_thread)

    async def _note_quota(self, call: Awaitable[Job]) -> Job:
        """Awaits a call that counts a job, and leaves the headers of its limits to the answer."""
        try:
            return await call
        finally:
            _note(self.request, *_list_states(self.quota))


class Needs:
    """The dependency of a route on a role; a route without one is open to everybody."""

    def __init__(
        self, role: Role, *, all_tenants: bool = False, notes_itself: bool = False
    ) -> None:
        """
        Arguments:
            all_tenants: the route is about all tenants, so a tenant's key is refused.
            notes_itself: the route writes its changes into the audit log, since only it knows what they are about.
        """
        self.role = role
        self.all_tenants = all_tenants
        self.notes_itself = notes_itself

    async def __call__(self, request: Request) -> Caller:
        """Returns the caller; raises WrongKey or OperatorOnly."""
        resources = cast(Resources, request.app.state.resources)
        key = await _authenticate(request, resources)
        request.scope["state"] |= {"key_id": key.id, "key": key}
        if key.rate is not None:
            state, refusal = await resources.run(resources.limits.count_request, key)
            _note(request, *([state] if state else []))
            if refusal is not None:
                raise refusal
        if not key.may(self.role):
            raise OperatorOnly(
                f"this key has the roles {', '.join(key.roles)}, expected {self.role}; ask an administrator for another"
            )
        if self.all_tenants and key.tenant is not None:
            raise OperatorOnly(
                "this key is one tenant's, and the call is about all of them; use an operator's key"
            )
        if self._is_audited(request, key):
            on = " ".join(request.path_params.values())
            await Caller._make(key, request, resources).note(on=on, detail=key.name)
        return Caller._make(key, request, resources)

    def _is_audited(self, request: Request, key: ApiKey) -> bool:
        """Tells if the call is a change by an operator: on an operator's route, or of one named thing."""
        is_change = request.method not in ("GET", "HEAD", "OPTIONS")
        is_operators = self.role in ("operate", "admin")
        if self.notes_itself:
            return False
        return is_change and (is_operators or (key.may("operate") and bool(request.path_params)))


async def _authenticate(request: Request, resources: Resources) -> ApiKey:
    """Returns the key that the request shows, or that of its browser's session."""
    if resources.settings.gateway_open:
        return resources.open_key
    kind, text = "key", _find_key(request)
    if text is None:
        kind, text = "session", request.cookies.get(COOKIE)
        if text is None:
            raise WrongKey("got no API key, expected the header `Authorization: Bearer vqa_...`")
        check_origin(request.scope, ())
    request.scope["state"]["credential"] = kind, text
    found = resources.checked.find(kind, text)
    return await resources.run(resources.checked.check, kind, text) if found is None else found


def _find_key(request: Request) -> str | None:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and text.strip():
        return text.strip()
    return request.headers.get("x-api-key") or None


def _note(request: Request, *found: LimitState) -> None:
    """Leaves the headers of limits to the middleware, which adds them to the answer."""
    if not found:
        return
    states: dict[str, LimitState] = request.scope["state"].setdefault("limits", {})
    states |= {state.name: state for state in found}
    request.scope["state"]["headers"] = {
        "ratelimit-policy": describe_policies([*states.values()]),
        "ratelimit": describe_states([*states.values()]),
    }


def _make_quota(key: ApiKey) -> KeyQuota:
    return KeyQuota(
        key.id,
        jobs=key.jobs_per_day,
        open_jobs=key.open_jobs,
        frames=key.frames_per_day,
        tokens=key.tokens_per_day,
    )


def _list_states(quota: KeyQuota) -> Iterator[LimitState]:
    reset_s = ceil(seconds_left_of_day())
    for name, used in (quota.used or {}).items():
        most = quota.limits[name]
        has_window = name != "open_jobs"
        yield LimitState(
            name,
            most,
            DAY_S if has_window else None,
            max(0, most - used),
            reset_s if has_window else None,
        )


Submitter = Annotated[Caller, Depends(Needs("submit"))]
Reader = Annotated[Caller, Depends(Needs("read"))]
FleetReader = Annotated[Caller, Depends(Needs("read", all_tenants=True))]
Operator = Annotated[Caller, Depends(Needs("operate", all_tenants=True))]
Administrator = Annotated[Caller, Depends(Needs("admin", all_tenants=True))]
NotingOperator = Annotated[Caller, Depends(Needs("operate", all_tenants=True, notes_itself=True))]
NotingAdministrator = Annotated[
    Caller, Depends(Needs("admin", all_tenants=True, notes_itself=True))
]
