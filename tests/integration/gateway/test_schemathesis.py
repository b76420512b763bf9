"""Schemathesis against the document: requests that it allows and requests that it does not, for every operation.

A longer run: VIDEOQA_SCHEMATHESIS="--phases examples,coverage,fuzzing --max-examples 300 --seed 7" before the command.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.worker import announce, finish

from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.reference import examples
from videoqa.jobs import Ledger, queue_name

OPTIONS = os.environ.get(
    "VIDEOQA_SCHEMATHESIS", "--phases examples,fuzzing --max-examples 3 --seed 1"
)

CONFIG = """
[checks]  # all but these
positive_data_acceptance.enabled = false  # some rules are beyond a schema, as marks that fit the inputs
object_level_authorization.enabled = false  # test_route_table.py

[[operations]]
include-operation-id = "validate_job"
checks.allow_header_conformance.enabled = false  # its path is also that of a job called validate

[[operations]]
include-operation-id = "submit_jobs"
checks.negative_data_rejection.enabled = false  # a wrong row has an error of its own
"""


@pytest.fixture
def worker(ledger: Ledger) -> Iterator[None]:
    """Answers all jobs of the default model, so that no call waits for long."""
    stopped = threading.Event()
    queues = [queue_name(ledger.keys.prefix, None, each) for each in ("interactive", "bulk")]
    announce(ledger, examples.MODEL)

    def work() -> None:
        n = 0
        while not stopped.wait(0.01):
            claim = ledger.claim(queues, worker="host:1", lease_s=60, token=f"t{n}").claim
            if claim is not None:
                n += 1
                finish(ledger, claim, q1="a cat")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    stopped.set()
    thread.join(60)


@pytest.mark.usefixtures("worker")
def test_schemathesis_finds_nothing(gateway: GatewayServer, keys: KeyStore, tmp_path: Path) -> None:
    key = keys.create("schemathesis", ("admin",))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", f"{gateway.url}/openapi.json",
        "--header", f"Authorization: Bearer {key.text}",
        "--continue-on-failure", "--no-color", "--warnings", "off", "--request-timeout", "60",
        "--suppress-health-check", "all", *shlex.split(OPTIONS),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
