"""Each row of the fault matrix at a small size; `make faults` runs the full ones."""

from __future__ import annotations

import importlib
import json

import pytest

ROWS = {
    "kill_workers": 80,
    "lost_bells": 60,
    "rolling_restart": 80,
    "kill_redis": 100,
    "slow_redis": 24,
    "full_redis": 150,
    "flushed_redis": 30,
    "failing_s3": 24,
    "lying_s3": 40,
    "kill_decoders": 50,
    "hanging_source": 3,
    "cancel": 32,
    "zombie": 80,
    "poison": 60,
    "duplicates": 40,
    "backlog": 300,
    "idempotency": 10,
}


@pytest.mark.parametrize("row", ROWS)
def test_nothing_is_lost(row: str) -> None:
    tally = importlib.import_module(f"faults.{row}").run(ROWS[row], seed=1)
    print(json.dumps(tally.as_json()))
    assert tally.sound, tally.as_json()
    assert tally.jobs >= ROWS[row] or row == "full_redis"
