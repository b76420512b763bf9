"""Chat completions by OpenAI's client for Node, and by the curl lines of OpenAI's documentation."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.chats import ask, list_jobs, say, wait_for_job, worker
from support.node import NodeClient, needs_openai_node
from support.processes import wait_until
from support.worker import announce, begin, finish

from videoqa.client import Client
from videoqa.contract import Failure, Job
from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore
from videoqa.jobs import Ledger


@pytest.fixture
def key(keys: KeyStore) -> str:
    return keys.create("ai", ["submit", "read"], tenant="a").text


@pytest.fixture
def node(gateway: GatewayServer, key: str) -> Iterator[NodeClient]:
    with NodeClient(gateway.url, key) as client:
        yield client


def answer(ledger: Ledger, *texts: str) -> Callable[[Job], None]:
    def play(job: Job) -> None:
        claim = begin(ledger)
        say(ledger, claim, *texts)
        finish(ledger, claim, q1="a cat sits")

    return play


@needs_openai_node
def test_openais_client_for_node_gets_answers(
    node: NodeClient, client: Client, ledger: Ledger
) -> None:
    announce(ledger, "llava")
    assert node.call("models") == {"ok": ["llava"]}
    with worker(client, answer(ledger)):
        found = node.call("chat", body=ask(max_tokens=7, seed=3))["ok"]
    (job,) = list_jobs(client)
    assert found["job"] == job.id
    assert found["data"]["choices"][0]["message"]["content"] == "a cat sits"
    assert found["data"]["usage"]["total_tokens"] == 2
    with worker(client, answer(ledger, " a", " cat"), count=2):
        options = {"stream_options": {"include_usage": True}}
        chunks = node.call("stream", body=ask(**options))["ok"]["chunks"]
    *texts, last, usage = chunks
    assert "".join(one["choices"][0]["delta"]["content"] for one in texts) == "a cat sits"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 2)


@needs_openai_node
def test_openais_client_for_node_understands_errors(
    node: NodeClient, client: Client, ledger: Ledger
) -> None:
    refused = node.call("chat", body=ask(n=2))["error"]
    assert (refused["kind"], refused["status"], refused["param"]) == ("BadRequestError", 400, "n")
    assert node.call("stranger", body=ask())["error"]["kind"] == "AuthenticationError"
    announce(ledger, "llava")
    unknown = node.call("stream", body=ask(model="gpt-4o"))["error"]
    assert (unknown["kind"], unknown["code"]) == ("NotFoundError", "model_not_found")

    def play(job: Job) -> None:
        claim = begin(ledger)
        if job.request and job.request.generation.seed:
            say(ledger, claim, "a cat")
            threading.Event().wait(0.3)
        failure = Failure(code="source_not_found", message="404", attempt=1, param="inputs.0.url")
        assert ledger.fail(claim.job_id, claim.token, failure, delay_s=0) == "failed"

    with worker(client, play):
        early = node.call("stream", body=ask())["error"]
    assert (early["status"], early["code"]) == (400, "source_not_found")
    assert early["param"] == "messages.0.content.0.video_url.url"
    with worker(client, play, count=2):
        late = node.call("stream", body=ask(seed=1))["ok"]
    assert late["chunks"][0]["choices"][0]["delta"]["content"] == "a cat"
    assert (late["error"]["kind"], late["error"]["code"]) == ("APIError", "source_not_found")


@needs_openai_node
def test_openais_client_for_node_cancels_what_it_leaves(
    node: NodeClient, client: Client, ledger: Ledger
) -> None:
    def play(job: Job) -> None:
        say(ledger, begin(ledger), "a", " cat", " sits")

    with worker(client, play):
        assert len(node.call("stream", body=ask(), leaveAfter=1)["ok"]["chunks"]) == 1
    wait_for_job(client, "canceling")
    wait_until(lambda: list_jobs(client)[0].state == "canceling", within_s=2)


CURL = r"""
curl -s https://api.openai.com/v1/chat/completions \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer $OPENAI_API_KEY" \
  -d '{
    "model": "gpt-4.1",
    "messages": [
      {
        "role": "user",
        "content": [
          {
            "type": "text",
            "text": "What is in this image?"
          },
          {
            "type": "image_url",
            "image_url": {
              "url": "https://upload.wikimedia.org/wikipedia/commons/thumb/d/dd/x.jpg/2560px-x.jpg"
            }
          }
        ]
      }
    ],
    "max_tokens": 300STREAM
  }'
"""
"""The line of OpenAI's documentation for images ("Create chat completion", "Image input")."""


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("stream", [False, True])
def test_the_curl_line_of_openais_documentation_passes(
    gateway: GatewayServer, key: str, client: Client, ledger: Ledger, stream: bool
) -> None:
    announce(ledger, "gpt-4.1")
    line = CURL.replace("https://api.openai.com", gateway.url)
    line = line.replace("STREAM", ', "stream": true' if stream else "")

    def play(job: Job) -> None:
        claim = begin(ledger, model="gpt-4.1")
        finish(ledger, claim, q1="a boardwalk")

    with worker(client, play):
        found = subprocess.run(
            ["sh", "-c", line], env={"OPENAI_API_KEY": key, "PATH": "/usr/bin:/bin"}, text=True,
            capture_output=True, check=True,
        ).stdout  # fmt: skip
    if not stream:
        body: dict[str, Any] = json.loads(found)
        assert body["choices"][0]["message"]["content"] == "a boardwalk"
        assert body["model"] == "gpt-4.1"
        return
    *chunks, last = [one.removeprefix("data: ") for one in found.split("\n\n") if one]
    assert last == "[DONE]"
    assert json.loads(chunks[0])["choices"][0]["delta"] == {
        "role": "assistant",
        "content": "a boardwalk",
    }
