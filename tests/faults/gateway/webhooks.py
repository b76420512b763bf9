"""Row 30: gateways are killed while receivers of webhooks fail, hang, redirect, are busy, or are gone.

    python tests/faults/gateway/webhooks.py [--jobs 2000] [--seed 1] [--json]

No worker runs: jobs are ended by the ledger's calls, half of them as succeeded and half as canceled, and each end is to
be told. Two gateways are killed with SIGKILL in turn, as long as anything is to be told. `lost` counts ends that no
receiver has taken, `wrong` calls that are not signed and deliveries that ended otherwise than they should, `conflict`
jobs with two ids, or ids with two bodies. A call that came twice with the same id is a duplicate, and allowed.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.processes import wait_until
from support.receiver import Got, Receiver, receiving
from support.worker import begin, finish

from faults.gateway.gateways import Gateway
from faults.rig import Rig
from faults.script import main
from faults.tally import Tally
from videoqa import verify_webhook
from videoqa.errors import WebhookInvalid
from videoqa.gateway.webhooks import DeliveryStore, SigningSecrets

TIMEOUT_S = 1.0
SETTINGS = {
    "VIDEOQA_WEBHOOK_NETWORKS": "127.0.0.0/8",
    "VIDEOQA_WEBHOOK_TIMEOUT_S": str(TIMEOUT_S),
    "VIDEOQA_WEBHOOK_RETRY_DELAYS_S": ",".join(["0.3"] * 60),
    "VIDEOQA_GATEWAY_DRAIN_S": "1",
}
GATEWAYS, RECEIVERS = 2, 6
ANSWERS: tuple[int | str, ...] = (204, 204, 204, 204, 500, 503, 301, 429, "hang", "close")
SETTLED_S = 180.0


class Hooks:
    """Gateways that are killed, and receivers that answer by chance; the last one is gone."""

    def __init__(self, rig: Rig, stack: ExitStack, seed: int) -> None:
        self.rig, self.draw = rig, random.Random(seed)
        self.receivers = [stack.enter_context(receiving()) for _ in range(RECEIVERS)]
        self.answered: Counter[str] = Counter()
        self.taken: dict[str, list[Got]] = defaultdict(list)
        """Calls by their job that a receiver has answered with a 2xx."""
        for receiver in self.receivers[:-1]:
            receiver.answer = self.answer
        self.gone.answer = lambda got: 410
        self.ended: dict[str, bool] = {}
        """Jobs that have ended, and whether their receiver is gone."""
        self.gateways = [stack.enter_context(Gateway(rig, SETTINGS)) for _ in range(GATEWAYS)]

    @property
    def gone(self) -> Receiver:
        return self.receivers[-1]

    def answer(self, got: Got) -> int | tuple[int, dict[str, str]] | None:
        """Answers by chance; runs in a thread of the receiver."""
        how = self.draw.choice(ANSWERS)
        self.answered[str(how)] += 1
        if how == "hang":
            time.sleep(2 * TIMEOUT_S)
            return 204  # too late
        if how == "close":
            return None
        assert isinstance(how, int)
        if how == 204:
            self.taken[got.event["data"]["id"]].append(got)
        where = {"location": self.gone.url, "retry-after": "1"}
        return how, where if how in (301, 429) else {}

    def end_jobs(self, count: int) -> None:
        """Submits and ends so many jobs, some dozens a second."""
        for number in range(count):
            receiver = self.receivers[number % RECEIVERS]
            job = self.rig.client.submit(
                inputs=["s3://b/x.mp4"],
                questions=["What?"],
                tenant="ab"[number % 2],
                webhook=receiver.url,
            )
            if number % 4 < 2:
                self.rig.client.cancel(job.id)
            else:
                claim = begin(self.rig.ledger, f"t{number}")
                assert claim.job_id == job.id
                finish(self.rig.ledger, claim, q1="a cat")
            self.ended[job.id] = receiver is self.gone
            self.rig.tally.jobs += 1
            time.sleep(0.02)


def run(jobs: int, seed: int) -> Tally:
    with Rig("30 webhooks", seed) as rig, ExitStack() as stack:
        begun = time.monotonic()
        hooks = Hooks(rig, stack, seed)
        at = {"url": rig.redis_url, "prefix": "faults"}
        store = DeliveryStore(rig.plain, **at)
        ending = threading.Thread(target=hooks.end_jobs, args=(jobs,), daemon=True)
        ending.start()
        wait_until(lambda: sum(len(one.got) for one in hooks.receivers) > 0)
        until = time.monotonic() + SETTLED_S + jobs / 10
        while ending.is_alive() or count_open(store, rig) or rig.tally.kills < GATEWAYS:
            assert time.monotonic() < until, f"{count_open(store, rig)} ends are not told yet"
            time.sleep(hooks.draw.uniform(0.2, 2))
            gateway = hooks.gateways[rig.tally.kills % GATEWAYS]
            gateway.kill()
            rig.tally.kills += 1
            gateway.start()  # the other one works meanwhile
        ending.join()
        tally = judge(hooks, store, SigningSecrets(rig.plain, **at))
        tally.seconds = time.monotonic() - begun
        return tally


def count_open(store: DeliveryStore, rig: Rig) -> int:
    """Returns how many ends are still to be told, or known to no gateway yet."""
    waiting = int(rig.plain.xlen("faults:outbox"))  # type: ignore[arg-type]
    return waiting + len(store.find(None, status="pending", limit=1000).deliveries)


def judge(hooks: Hooks, store: DeliveryStore, secrets: SigningSecrets) -> Tally:
    """Compares what was to be told with what came."""
    tally = hooks.rig.tally
    calls = [got for receiver in hooks.receivers for got in receiver.got]
    ids, bodies = defaultdict(set), defaultdict(set)
    for got in calls:
        try:
            secret = secrets.get(got.event["data"]["tenant"]).current
            call = verify_webhook(got.body, got.headers, secret, tolerance_s=86_400)
        except WebhookInvalid:
            tally.wrong += 1
            continue
        ids[call.data["id"]].add(call.id)
        bodies[call.id].add(got.body)
    tally.conflict += sum(len(found) > 1 for found in [*ids.values(), *bodies.values()])
    duplicates = 0
    for job_id, is_gone in hooks.ended.items():
        (delivery,) = store.find(None, job_id=job_id).deliveries or [None]
        taken = hooks.taken[job_id]
        tally.lost += delivery is None or (not is_gone and not taken)
        expected = "failed" if is_gone else "delivered"
        tally.wrong += delivery is not None and delivery.status != expected
        tally.stuck += delivery is not None and delivery.status == "pending"
        duplicates += max(0, len(taken) - 1)
    tally.lost += len(hooks.ended) != tally.jobs
    tally.notes |= {
        "calls": len(calls),
        "duplicates": duplicates,
        "answers": dict(sorted(hooks.answered.items())),
        "calls_of_gone": len(hooks.gone.got),
    }
    return tally


if __name__ == "__main__":
    main(run, jobs=2_000, about=__doc__)
