"""RabbitMQ is the broker: it is killed, has memory alarms, and takes back what is not acknowledged in time.

    python tests/faults/redis/rabbitmq.py [--jobs 2000] [--seed 1] [--json]

Faults come by turns: SIGKILL and a start with the same queues; an alarm, beside which it takes no messages; a job
that runs for longer than `consumer_timeout`, after which RabbitMQ closes the channel of a consumer that has not
acknowledged a message. Jobs that come while such a job runs on the only worker are answered before it ends.
`wrong` counts those that are not, submits that take longer than `SUBMIT_S`, and queues and exchanges beyond one for
each model and priority.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.processes import wait_until
from support.rabbitmq import RabbitServer

from faults.rig import Rig
from faults.script import main
from faults.stores.hanging_source import Hanging
from faults.tally import Tally
from videoqa.contract import FINAL_STATES, PRIORITIES

CONSUMER_TIMEOUT_S = 1
LONG_S = 5.0
FAULTS = 50
"""At full size; a small run has one of each kind."""
BESIDE = 4
"""Jobs that come beside a long one, after its message would have been taken back."""
SUBMIT_S = 8.0
ALARM_S = 1.0


class RabbitRig(Rig):
    """A rig that notes its slowest submit."""

    slowest_s = 0.0

    def _acknowledge(self, number: int) -> None:
        begun = time.monotonic()
        super()._acknowledge(number)
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)


def run(jobs: int, seed: int) -> Tally:
    with (
        tempfile.TemporaryDirectory() as folder,
        RabbitServer(
            Path(folder, "rabbitmq"), consumer_timeout=str(CONSUMER_TIMEOUT_S * 1000)
        ) as rabbit,
    ):
        environ = {
            "VIDEOQA_BROKER_URL": rabbit.url,
            "VIDEOQA_PRIVATE_ADDRESSES": "true",
            "VIDEOQA_SOURCE_READ_TIMEOUT_S": "60",
            "VIDEOQA_SLOTS": "4",
        }
        with RabbitRig(
            "27 RabbitMQ", seed, environ=environ, per_fault=max(jobs / FAULTS, 10)
        ) as rig:
            rig.start(1)
            hanging = Hanging()
            beside_s: list[float] = []
            faults = 0
            with rig.submitting(jobs) as going:
                while going() or faults < 3:
                    kind = faults % 3
                    if kind == 0:
                        rabbit.restart()
                    elif kind == 1:
                        _raise_alarm(rabbit)
                    else:
                        beside_s.append(_hold(rig, hanging))
                    faults += 1
                    rig.tally.kills += 1
            hanging.close()
            _count_declared(rig, rabbit)
            rig.tally.wrong += rig.slowest_s > SUBMIT_S
            rig.tally.notes |= {
                "restarts": (faults + 2) // 3,
                "alarms": (faults + 1) // 3,
                "long_jobs": len(beside_s),
                "beside_long_s": round(max(beside_s), 2),
                "slowest_submit_s": round(rig.slowest_s, 2),
            }
            return rig.settle()


def _raise_alarm(rabbit: RabbitServer) -> None:
    rabbit.control("set_vm_memory_high_watermark", "absolute", "1MB")
    time.sleep(ALARM_S)
    rabbit.control("set_vm_memory_high_watermark", "0.4")


def _hold(rig: Rig, hanging: Hanging) -> float:
    """Has a job run for `LONG_S` with others beside it; returns in how many seconds these were answered."""
    client = rig.client
    long = client.submit(
        inputs=[hanging.url], questions=["What?"], timeout_s=LONG_S, max_attempts=1
    ).id
    wait_until(lambda: client.get(long).state == "running")
    time.sleep(2 * CONSUMER_TIMEOUT_S)
    begun = time.monotonic()
    fields = rig.request(0) | {"idempotency_key": None}
    beside = [client.submit(fields).id for _ in range(BESIDE)]
    wait_until(lambda: all(state in FINAL_STATES for state in rig.states(beside)))
    taken_s = time.monotonic() - begun
    rig.tally.wrong += client.get(long).state != "running"
    rig.tally.wrong += sum(client.get(job_id).state != "succeeded" for job_id in beside)
    failure = client.wait(long, timeout_s=60).failure
    rig.tally.wrong += not (failure and failure.code == "job_timeout")
    return taken_s


def _count_declared(rig: Rig, rabbit: RabbitServer) -> None:
    """Counts queues and exchanges that should not be there, queues that a restart loses, and full ones."""
    queues = {f"faults.{model}.{kind}" for model in ("default", "demo") for kind in PRIORITIES}
    lines = rabbit.control(
        "list_queues", "name", "durable", "auto_delete", "exclusive"
    ).splitlines()
    rig.tally.wrong += {tuple(line.split()) for line in lines} != {
        (queue, "true", "false", "false") for queue in queues
    }
    exchanges = rabbit.control("list_exchanges", "name").split()
    rig.tally.wrong += {name for name in exchanges if not name.startswith("amq.")} - queues != set()
    wait_until(lambda: sum(rabbit.count_messages(queue) for queue in queues) == 0)


if __name__ == "__main__":
    main(run, jobs=2_000, about=__doc__)
