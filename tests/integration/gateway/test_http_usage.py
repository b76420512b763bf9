"""`GET /v1/usage`: a key's jobs are counted for it, and each tenant reads its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from support.worker import begin, finish

from videoqa.gateway.access.keys import KeyStore
from videoqa.jobs import Ledger

Connect = Callable[..., httpx.Client]
ASKED: dict[str, Any] = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"], "tags": ["t"]}


def test_a_keys_jobs_are_counted_for_it_and_its_tenant(
    connect: Connect, keys: KeyStore, ledger: Ledger
) -> None:
    a, b, operator = (connect("submit", "read", tenant="a"), connect("read", tenant="b"),
                      connect("operate", "read"))  # fmt: skip
    (key,) = [key for key in keys.list() if key.tenant == "a"]
    job = a.post("/v1/jobs", json=ASKED).json()
    finish(ledger, begin(ledger), q1="a cat")
    assert "key" not in a.get(f"/v1/jobs/{job['id']}").json()
    for by, name in (("tag", "t"), ("key", key.id), ("tenant", "a"), ("model", None)):
        answer = a.get("/v1/usage", params={"by": by}).json()
        (row,) = answer["usage"]
        assert (answer["by"], row["name"], row["succeeded"], row["answers"]) == (by, name, 1, 1)
    day = answer["to"]
    assert [row["name"] for row in operator.get("/v1/usage").json()["usage"]] == [day]
    assert operator.get("/v1/usage", params={"tenant": "b"}).json()["usage"] == []
    assert b.get("/v1/usage").json()["usage"] == []
    assert a.get("/v1/usage", params={"to": "2001-01-01"}).json()["usage"] == []
    refused = b.get("/v1/usage", params={"tenant": "a"})
    assert (refused.status_code, refused.json()["code"]) == (403, "operator_only")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("from=yesterday", "from"),
        ("from=2020-01-02&to=2020-01-01", "from"),
        ("from=0001-01-01", "from"),
        ("by=moon", "by"),
        ("tenant=" + "x" * 129, "tenant"),
    ],
)
def test_a_wrong_question_is_a_problem(connect: Connect, query: str, param: str) -> None:
    refused = connect("read").get(f"/v1/usage?{query}")
    assert (refused.status_code, refused.json()["param"]) == (400, param), refused.text


def test_a_body_cannot_name_the_key_that_is_counted(connect: Connect) -> None:
    refused = connect("submit").post("/v1/jobs", json=ASKED | {"key": "k1"})
    assert (refused.status_code, refused.json()["param"]) == (400, "key")
