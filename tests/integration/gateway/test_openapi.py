"""The OpenAPI document: valid, complete for every route of the app, and true: its examples are sent to a gateway."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator
from support.worker import announce, begin, fail, finish

import videoqa.gateway
from videoqa.gateway import GatewaySettings, make_app
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.document import list_operations
from videoqa.gateway.reference.error_codes import CORE_CODES, GATEWAY_CODES
from videoqa.gateway.reference.operation import EVENT_STREAM
from videoqa.jobs import Ledger

Connect = Callable[..., httpx.Client]

APP = make_app(GatewaySettings())
DOCUMENT = APP.openapi()
ROUTES = list(list_operations(APP))
FOLDER = Path(videoqa.gateway.__file__).parent
ELSEWHERE = {
    "create_batch": "test_openai_batches.py",
    "create_chat_completion": "test_openai_chat.py",
    "get_delivery": "test_webhooks.py",
    "get_sheet": "test_http_sheets.py",
    "read_input": "test_job_media.py",
    "replay_delivery": "test_webhooks.py",
}
"""Operations whose examples succeed with what the jobs of these tests lack, and the tests that have it."""
MISSING = "the OpenAPI document lacks {}; see videoqa/gateway/reference/operation.py"


def entry_of(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method.lower()]
    return found


OPERATIONS = [(method, path, entry_of(method, path)) for method, path, _, _ in ROUTES]
IDS = [f"{method} {path}" for method, path, _ in OPERATIONS]


def close(schema: Any) -> Any:
    """Returns the schema with all fields that it does not list refused, so that none is forgotten."""
    if isinstance(schema, list):
        return [close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: close(each) for name, each in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


CLOSED = {"components": {"schemas": close(copy.deepcopy(DOCUMENT["components"]["schemas"]))}}


def find_mistakes(schema: dict[str, Any], value: Any) -> list[str]:
    """Compares a value with a schema of the document."""
    validator = Draft202012Validator(schema | CLOSED, format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message:.300}" for error in validator.iter_errors(value)]


def list_contents(entry: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields place, media type and content of all bodies of an operation."""
    for kind, content in entry.get("requestBody", {}).get("content", {}).items():
        yield "the request", kind, content
    for status, answer in entry["responses"].items():
        found = resolve(answer)
        for kind, content in found.get("content", {}).items():
            yield status, kind, content


def resolve(answer: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in answer:
        return answer
    found: dict[str, Any] = DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return found


def test_the_document_is_valid() -> None:
    mistakes = [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()]
    assert mistakes == []
    names = [entry["operationId"] for _, _, entry in OPERATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("method", "path", "route", "operation"), ROUTES, ids=IDS)
def test_a_route_is_documented(method: str, path: str, route: Any, operation: Any) -> None:
    """Adding a route? Put `@document(...)` below its router's decorator."""
    assert operation is not None, MISSING.format(f"@document(...) above {route.endpoint}")
    entry = entry_of(method, path)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", entry["operationId"]), "expected verb_noun"
    assert entry["summary"], MISSING.format("the docstring's first line")
    assert entry["tags"], MISSING.format("the router's tags")
    known = {tag["name"] for tag in DOCUMENT["tags"]}
    assert set(entry["tags"]) <= known, "describe the tag in videoqa/gateway/reference/document.py"
    for parameter in entry["parameters"]:
        what = f"of the parameter {parameter['name']}: Annotated[..., Query(description=, examples=[])]"
        assert parameter.get("description"), MISSING.format(f"the description {what}")
        assert "example" in parameter, MISSING.format(f"an example {what}")
    reads = re.search(r"read_object\(|\.stream\(\)|\.form\(", inspect.getsource(route.endpoint))
    assert not reads or operation.bodies, MISSING.format("the body that the route reads")
    assert any(status < 400 for status in operation.answers), MISSING.format("a good answer")
    assert str(route.status_code or 200) in entry["responses"], "declare the decorator's status"


@pytest.mark.parametrize(("method", "path", "entry"), OPERATIONS, ids=IDS)
def test_examples_are_as_their_schemas_say(method: str, path: str, entry: dict[str, Any]) -> None:
    for parameter in entry["parameters"]:
        mistakes = find_mistakes(parameter["schema"], parameter["example"])
        assert mistakes == [], parameter["name"]
    for place, kind, content in list_contents(entry):
        values = [each["value"] for each in content.get("examples", {}).values()]
        values += [content["example"]] if "example" in content else []
        assert values, MISSING.format(f"an example of {place} as {kind}")
        schema = content["schema"]
        if kind == EVENT_STREAM:
            texts = re.findall(r"^data: (\{.*)$", values.pop(), re.MULTILINE)
            schema, values = (
                schema["properties"]["data"]["contentSchema"],
                [*map(json.loads, texts)],
            )
        for value in values:
            assert find_mistakes(schema, value) == [], f"{place}: {kind}"


@pytest.mark.parametrize(("method", "path", "entry"), OPERATIONS, ids=IDS)
def test_a_route_documents_the_errors_of_its_kind(
    method: str, path: str, entry: dict[str, Any]
) -> None:
    guarded = {"401", "403", "429"} if entry["security"] else set()
    with_body = {"400", "413", "415"} if "requestBody" in entry else set()
    assert guarded | with_body | {"500"} <= set(entry["responses"])


# -- codes


def find_raised_codes() -> set[tuple[int, str]]:
    """Finds statuses and codes that stand as constants in calls of HttpError, or of a class of it."""
    found = set()
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and len(node.args) >= 2:
                status, code = node.args[:2]
                if (
                    isinstance(status, ast.Constant)
                    and isinstance(status.value, int)
                    and 400 <= status.value <= 599
                    and isinstance(code, ast.Constant)
                    and re.fullmatch("[a-z_]+", str(code.value))
                ):
                    found.add((status.value, str(code.value)))
    return found


def test_every_code_of_the_gateway_stands_in_the_table() -> None:
    """New codes get a row in videoqa/gateway/reference/error_codes.py; then run docs/generate.py."""
    raised = find_raised_codes()
    assert len(raised) > 5
    table = {(each.status, code) for code, each in GATEWAY_CODES.items()}
    known = table | {(status, code) for status, code in raised if code in CORE_CODES}
    assert raised <= known, "add them to GATEWAY_CODES"
    others = {
        "wrong_key",
        "key_not_found",
        "key_changed",
        "wrong_login",
        "http_error",
        "method_not_allowed",
    }
    gone = {code for _, code in table - raised} - others
    assert not gone, "nothing raises them: take them out of GATEWAY_CODES"
    assert not set(GATEWAY_CODES) & set(CORE_CODES)


# -- true


@pytest.fixture
def jobs(connect: Connect, ledger: Ledger) -> dict[str, str]:
    """Jobs by their state, all of the tenant of the caller."""
    http = connect("submit", "read", tenant="acme")
    made = [
        http.post("/v1/jobs", json=examples.ASKED | {"stream": True}).json()["id"] for _ in "12345"
    ]
    finish(ledger, begin(ledger, "t1"), q1="a cat")
    assert fail(ledger) == made[1]
    begin(ledger, "t2")
    http.post(f"/v1/jobs/{made[3]}/cancel")
    return dict(zip(("succeeded", "failed", "running", "canceled", "queued"), made, strict=True))


def send(
    http: httpx.Client, method: str, path: str, entry: dict[str, Any], ids: dict[str, str]
) -> httpx.Response:
    """Sends the example of an operation, with these ids in its path."""
    values: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}}
    for parameter in entry["parameters"]:
        values[parameter["in"]][parameter["name"]] = parameter["example"]
    values["query"].pop("wait", None)
    values["header"] = {
        name: str(value)
        for name, value in values["header"].items()
        if name not in ("Prefer", "If-None-Match")
    }
    url = path.format(**values["path"] | ids)
    contents = entry.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in contents:
        fields = contents["multipart/form-data"]["example"]
        files = {name: ("a.mp4", PART) for name, value in fields.items() if value[0] == "@"}
        data = {name: value for name, value in fields.items() if name not in files}
        return http.request(method, url, data=data, files=files)
    body = contents.get("application/json", {}).get("example")
    return http.request(method, url, params=values["query"], headers=values["header"], json=body)


PART = b"a part"


def begin_upload(http: httpx.Client, name: str) -> tuple[str, dict[str, Any]]:
    """Begins an upload for an operation, and returns the body with which it succeeds."""
    asked = examples.UPLOAD_ASKED | {"bytes": len(PART)}
    upload_id = http.post("/v1/uploads", json=asked).json()["id"]
    if name != "complete_upload":
        return upload_id, {}
    part = http.post(f"/v1/uploads/{upload_id}/parts", files={"data": ("a.mp4", PART)}).json()
    return upload_id, {"part_ids": [part["id"]]}


def check_answer(answer: httpx.Response, entry: dict[str, Any], where: str) -> None:
    """Compares an answer with the document: its status, its media type, its headers, and all of its body."""
    documented = entry["responses"].get(str(answer.status_code))
    assert documented is not None, (
        f"{where}: {answer.status_code} is not documented: {answer.text:.500}"
    )
    documented = resolve(documented)
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if "content" not in documented:
        assert answer.content == b"", where
        return
    assert kind in documented["content"], f"{where}: {kind} is not documented"
    if kind.endswith("json"):
        mistakes = find_mistakes(documented["content"][kind]["schema"], answer.json())
        assert mistakes == [], f"{where}: {answer.text:.1000}"


def make_batch(http: httpx.Client) -> httpx.Response:
    """Makes a batch of a new file; nobody answers its line."""
    body = examples.CHAT_ASKED | {"stream": False}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = ("lines.jsonl", json.dumps(line).encode())
    sent = http.post("/v1/files", files={"file": file}, data={"purpose": "batch"}).json()
    asked = examples.BATCH_ASKED | {"input_file_id": sent["id"]}
    return http.post("/v1/batches", json=asked)


def test_the_examples_are_true(connect: Connect, jobs: dict[str, str], ledger: Ledger) -> None:
    """Each operation is called with its example, for a job in each state; the answer is as documented."""
    http = connect("admin", tenant="acme")
    operator = connect("admin")
    announce(ledger, examples.MODEL)
    last = ("retry_job", "cancel_job", "delete_job")
    succeeded = set()
    names = [entry["operationId"] for _, _, entry in OPERATIONS]
    by_name = dict(zip(names, OPERATIONS, strict=True))
    for name in (*(each for each in names if each not in last), *last):
        method, path, entry = by_name[name]
        if name == "create_chat_completion":
            continue  # answers once a worker does; test_openai_chat.py reads its answers
        needs_operator = "of no tenant" in entry["description"]
        for state, job_id in jobs.items() if "{job_id}" in path else [("", "")]:
            if name == "follow_job" and state in ("running", "queued"):
                continue  # goes on until the job ends
            caller = operator if needs_operator else http
            ids = {"job_id": job_id}
            if "{file_id}" in path:
                ids["file_id"] = send(http, *by_name["upload_file"], {}).json()["id"]
            if "{key_id}" in path:
                made = send(operator, *by_name["create_key"], {})
                check_answer(made, by_name["create_key"][2], "create_key")
                ids["key_id"] = made.json()["id"]
            if "{batch_id}" in path:
                made = make_batch(http)
                check_answer(made, by_name["create_batch"][2], "create_batch")
                ids["batch_id"] = made.json()["id"]
            if "{bulk_id}" in path:
                made = send(http, *by_name["start_bulk_action"], {})
                check_answer(made, by_name["start_bulk_action"][2], "start_bulk_action")
                ids["bulk_id"] = made.json()["id"]
            if "{upload_id}" in path:
                ids["upload_id"], body = begin_upload(http, name)
                if body:
                    url = path.format(**ids)
                    check_answer(http.request(method, url, json=body), entry, name)
            answer = send(caller, method, path, entry, ids)
            check_answer(answer, entry, f"{name} {state}")
            if answer.is_success:
                succeeded.add(name)
    assert succeeded == {*names} - {*ELSEWHERE}, "no example of these has succeeded"


def test_a_caller_that_waits_gets_what_is_documented(
    connect: Connect, ledger: Ledger, jobs: dict[str, str]
) -> None:
    http = connect("submit", "read", tenant="acme")
    entry = entry_of("POST", "/v1/jobs")
    headers = {"prefer": "wait=1"}
    check_answer(http.post("/v1/jobs", json=examples.ASKED, headers=headers), entry, "still waits")
    found = http.get(f"/v1/jobs/{jobs['succeeded']}")
    same = http.get(
        f"/v1/jobs/{jobs['succeeded']}", headers={"if-none-match": found.headers["etag"]}
    )
    assert same.status_code == 304
    check_answer(same, entry_of("GET", "/v1/jobs/{job_id}"), "304")
    for path in ("/v1/jobs/job_0", f"/v1/jobs/{jobs['queued']}/result"):
        entry = entry_of("GET", re.sub("job_[^/]+", "{job_id}", path))
        check_answer(http.get(path), entry, path)
    check_answer(connect().get("/v1/jobs"), entry_of("GET", "/v1/jobs"), "without a key")


def test_the_gateway_serves_the_document(connect: Connect) -> None:
    answer = connect().get("/openapi.json")
    assert json.loads(answer.text) == json.loads(json.dumps(DOCUMENT))


def test_the_packages_models_do_not_name_a_field_that_the_key_decides() -> None:
    body = DOCUMENT["components"]["schemas"]["JobBody"]["properties"]
    assert not {"tenant", "output"} & set(body)
    assert body["stream"]["description"]
