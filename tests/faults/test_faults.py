"""Each row of the fault matrix at a small size; `make faults` runs the full ones."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from support.rabbitmq import MISSING, find_rabbitmq

ROWS = {
    "kill_workers": 100,
    "lost_bells": 30,
    "rolling_restart": 40,
    "kill_redis": 60,
    "kill_both": 60,
    "power_cut": 40,
    "failover": 120,
    "sentinels": 100,
    "wait_replicas": 100,
    "slow_redis": 12,
    "full_redis": 80,
    "flushed_redis": 20,
    "failing_s3": 12,
    "store_away": 6,
    "full_disk": 24,
    "lying_s3": 20,
    "kill_decoders": 24,
    "gpu_errors": 300,
    "hanging_source": 3,
    "clock_jumps": 60,
    "cancel": 64,
    "zombie": 40,
    "poison": 32,
    "killers": 70,
    "duplicates": 24,
    "poisoned_broker": 60,
    "rabbitmq": 30,
    "backlog": 200,
    "idempotency": 10,
    "archive": 20,
    "segments": 12,
    "kill_gateways": 24,
    "redis_under_listeners": 60,
    "soak": 40,
    "webhooks": 60,
}


NO_RABBITMQ = pytest.mark.skipif(find_rabbitmq() is None, reason=MISSING)


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=[NO_RABBITMQ] if row == "rabbitmq" else []) for row in ROWS]
)
def test_nothing_is_lost(row: str) -> None:
    (program,) = Path(__file__).parent.glob(f"*/{row}.py")
    tally = importlib.import_module(f"faults.{program.parent.name}.{row}").run(ROWS[row], seed=1)
    print(json.dumps(tally.as_json()))
    assert tally.sound, tally.as_json()
    assert tally.jobs >= ROWS[row] or row == "full_redis"
    assert tally.notes.get("out_of_memory") != 0, "a run that met no fault says nothing"
