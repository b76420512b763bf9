"""Every route of the app, taken from its own table: who may call it, and what a foreign tenant sees of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from support.worker import begin, finish

import videoqa.gateway
from videoqa.gateway import GatewaySettings, make_app
from videoqa.gateway.access.caller import Needs
from videoqa.gateway.access.keys import ROLES
from videoqa.jobs import Ledger

Connect = Callable[..., httpx.Client]

OPEN = {
    "/livez",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/docs/style.css",
    "/docs/icon.svg",
    "/login",
    "/logout",
    "/static/{version}/{name}",
}
"""Routes that ask for no key: nothing of them is about a job, a worker or a tenant."""
FOLDER = Path(videoqa.gateway.__file__).parent
NOWHERE = "job_" + "0" * 27


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    needs: tuple[Needs, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def call(self, http: httpx.Client, **ids: str) -> httpx.Response:
        """Calls it with these ids in its path, and an unknown one for the others."""
        ids = {"number": "0"} | ids
        path = re.sub(r"{(\w+)(?::\w+)?}", lambda match: ids.get(match[1], NOWHERE), self.path)
        body = {} if self.method in ("GET", "HEAD", "DELETE", "OPTIONS") else {"json": {}}
        return http.request(self.method, path, **body)


def find_needs(dependant: Dependant) -> Iterator[Needs]:
    for each in dependant.dependencies:
        if isinstance(each.call, Needs):
            yield each.call
        yield from find_needs(each)


def list_routes() -> list[Route]:
    found = []
    for route in iter_route_contexts(make_app(GatewaySettings()).routes):
        dependant: Any = getattr(route, "dependant", None)
        needs = () if dependant is None else tuple(find_needs(dependant))
        found += [
            Route(method, str(route.path), needs) for method in sorted(route.methods or ["GET"])
        ]
    return found


ROUTES = list_routes()
GUARDED = [route for route in ROUTES if route.path not in OPEN]


def code_of(answer: httpx.Response) -> tuple[int, str | None]:
    is_json = answer.headers.get("content-type", "").endswith("json") and answer.content
    body = answer.json() if is_json else {}
    error = body.get("error")
    return answer.status_code, error["code"] if isinstance(error, dict) else body.get("code")


def test_the_table_has_routes_of_jobs() -> None:
    assert {"GET /v1/jobs", "DELETE /v1/jobs/{job_id}", "GET /v1/workers"} <= set(map(str, ROUTES))
    assert len(GUARDED) > 10


@pytest.mark.parametrize("route", GUARDED, ids=str)
def test_a_route_says_what_role_it_needs(route: Route) -> None:
    assert route.needs, f"{route} is open to everybody: let its caller depend on Needs(role)"


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.name)
def test_jobs_are_submitted_by_the_caller_that_checks_them(path: Path) -> None:
    """`Caller.submit` and `Caller.retry` compare the inputs with the key's scope, and count the job."""
    past = r"client\.(submit|submit_many|retry)\("
    if path.name not in ("caller.py", "ask_code.py"):  # the second one writes programs to copy
        assert not re.search(past, path.read_text()), f"{path.name} submits past its caller"


def test_no_route_answers_without_a_key_or_with_a_wrong_one(connect: Connect) -> None:
    nobody, stranger = connect(), connect()
    stranger.headers["authorization"] = "Bearer vqa_" + "0" * 12 + "_" + "0" * 49
    for route in GUARDED:
        for http in (nobody, stranger):
            answer = route.call(http)
            assert answer.status_code == 401, f"{route}: {answer.text}"
            assert answer.headers["www-authenticate"].startswith("Bearer"), route


def test_each_role_is_tried_on_each_route(connect: Connect) -> None:
    clients = {role: connect(role) for role in ROLES}
    for route in GUARDED:
        needed = {one.role for one in route.needs}
        for role, http in clients.items():
            status = route.call(http).status_code
            may = role == "admin" or needed <= {role}
            assert status != 401, f"{route} with {role}"
            assert (status != 403) == may, f"{route} with {role}: got {status}, needs {needed}"


def test_a_tenants_key_has_no_route_that_is_about_all_tenants(connect: Connect) -> None:
    http = connect("admin", tenant="a")
    about_all = [route for route in GUARDED if any(one.all_tenants for one in route.needs)]
    assert about_all
    for route in about_all:
        assert route.call(http).status_code == 403, route


def test_a_foreign_job_is_an_unknown_one_on_each_route(connect: Connect, ledger: Ledger) -> None:
    """The foreign jobs are of all kinds that a route may treat differently: queued, running, done, canceled."""
    owner, other = connect("submit", "read", tenant="a"), connect("admin", tenant="b")
    asked = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"]}
    jobs = [owner.post("/v1/jobs", json=asked).json()["id"] for _ in range(4)]
    finish(ledger, begin(ledger, "t1"), q1="a cat")
    begin(ledger, "t2")
    owner.post(f"/v1/jobs/{jobs[3]}/cancel")
    before = [owner.get(f"/v1/jobs/{job_id}").json()["state"] for job_id in jobs]
    assert before == ["succeeded", "running", "queued", "canceled"]
    about_jobs = [route for route in GUARDED if "{job_id}" in route.path]
    assert about_jobs
    for route in about_jobs:
        unknown = route.call(other, job_id=NOWHERE)
        assert unknown.status_code in (403, 404), f"{route}: {unknown.text}"
        for job_id in jobs:
            foreign = route.call(other, job_id=job_id)
            assert code_of(foreign) == code_of(unknown), f"{route} with {job_id}: {foreign.text}"
            ids = (r'job_[0-9A-Za-z]+|req_\w+|data-now="\d+"', "ID")
            assert re.sub(*ids, foreign.text) == re.sub(*ids, unknown.text), route
    assert [owner.get(f"/v1/jobs/{job_id}").json()["state"] for job_id in jobs] == before


def test_a_foreign_file_is_an_unknown_one_on_each_route(connect: Connect) -> None:
    """An expired file and one that a job has are in `test_files.py`."""
    owner, other = connect("submit", "read", tenant="a"), connect("admin", tenant="b")
    sent = {"files": {"file": ("a.mp4", b"a")}, "data": {"purpose": "user_data"}}
    file_id = owner.post("/v1/files", **sent).json()["id"]  # type: ignore[arg-type]
    asked = {"bytes": 1, "filename": "a.mp4", "purpose": "user_data"}
    upload_id = owner.post("/v1/uploads", json=asked).json()["id"]
    about_files = [route for route in GUARDED if re.search("{(file|upload)_id}", route.path)]
    assert len(about_files) > 5
    for route in about_files:
        nothing = "0" * 24
        unknown = route.call(other, file_id=f"file-{nothing}", upload_id=f"upload_{nothing}")
        foreign = route.call(other, file_id=file_id, upload_id=upload_id)
        assert unknown.status_code in (403, 404), f"{route}: {unknown.text}"
        assert code_of(foreign) == code_of(unknown), f"{route}: {foreign.text}"
        ids = (r"(file-|upload_)[0-9A-Za-z]+|req_\w+", "ID")
        assert re.sub(*ids, foreign.text) == re.sub(*ids, unknown.text), route
    assert owner.get(f"/v1/files/{file_id}").status_code == 200
    assert owner.get(f"/v1/uploads/{upload_id}").json()["status"] == "pending"


def list_like_unknown(other: httpx.Client, **ids: tuple[str, str]) -> list[Route]:
    """Lists the routes about a thing, each of which answers a foreign id as it answers an unknown one.

    Arguments:
        ids: the name in the path, and the ids.
    """
    ((name, (foreign_id, unknown_id)),) = ids.items()
    found = [route for route in GUARDED if f"{{{name}}}" in route.path]
    assert found
    for route in found:
        unknown = route.call(other, **{name: unknown_id})
        foreign = route.call(other, **{name: foreign_id})
        assert unknown.status_code == 404, f"{route}: {unknown.text}"
        varying = (rf'{foreign_id}|{unknown_id}|req_\w+|data-now="\d+"', "ID")
        assert re.sub(*varying, foreign.text) == re.sub(*varying, unknown.text), route
    return found


def test_a_foreign_batch_is_an_unknown_one_on_each_route(connect: Connect) -> None:
    owner, other = connect("submit", "read", tenant="a"), connect("admin", tenant="b")
    sent = {"files": {"file": ("a.jsonl", b"{}")}, "data": {"purpose": "batch"}}
    file_id = owner.post("/v1/files", **sent).json()["id"]  # type: ignore[arg-type]
    asked = {
        "input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h",
    }  # fmt: skip
    assert other.post("/v1/batches", json=asked).json()["error"]["code"] == "file_not_found"
    batch_id = owner.post("/v1/batches", json=asked).json()["id"]
    list_like_unknown(other, batch_id=(batch_id, "batch_" + "0" * 24))


def test_a_foreign_bulk_action_is_an_unknown_one_on_each_route(connect: Connect) -> None:
    owner, other = connect("submit", "read", tenant="a"), connect("admin", tenant="b")
    asked = {"action": "cancel", "filter": {"tag": "t"}}
    bulk_id = owner.post("/v1/bulk-actions", json=asked).json()["id"]
    list_like_unknown(other, bulk_id=(bulk_id, "bulk_" + "0" * 24))
    assert other.get("/v1/bulk-actions").json() == {"actions": []}
    assert [one["id"] for one in owner.get("/v1/bulk-actions").json()["actions"]] == [bulk_id]


def test_a_foreign_run_is_an_unknown_one_on_each_route(connect: Connect) -> None:
    owner, other = connect("submit", "read", tenant="a"), connect("admin", tenant="b")
    run_id = "run_" + "1" * 24
    asked = {"id": run_id, "kind": "caption", "name": "videos/", "begins": True}
    assert owner.post("/v1/runs", json=asked).status_code == 204
    assert other.post("/v1/runs", json=asked).status_code == 404
    about_runs = list_like_unknown(other, run_id=(run_id, "run_" + "0" * 24))
    assert len(about_runs) == 2
    for route in about_runs:
        assert route.call(owner, run_id=run_id).status_code == 200
