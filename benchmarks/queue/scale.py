"""Cost of the ledger to Valkey as the fleet grows: workers, tenants, models, queued jobs.

    python benchmarks/queue/scale.py [--quick] [--json] [--plot FILE] [--queued 1000 100000]
    python benchmarks/queue/scale.py --compare BEFORE.json AFTER.json

Each size has a private Valkey with that many announced workers and waiting jobs, made by the public calls of
the ledger and the client. Sizes: the smallest of all; each number raised alone; all raised together. Each call is
then made some hundred times, one after the other: CPU time of Valkey's main thread for a call, its ratio
to that at the smallest size, which is measured in turn in a Valkey beside it, p50 and p99 of the wall time, CPU
time of the client, bytes that Valkey sent and got, commands (those within scripts too) and socket reads. Other work
on the machine changes the wall times much, the CPU times a little, and the ratios hardly.

Then, at the smallest size: a second of an idle worker's reaper and lease keeper, also behind TLS; one job with a
real worker and the bundled demo model; bytes of the records; jobs a second beside bare Celery, dramatiq and rq,
whose messages nobody can ask about (`pip install --group bench`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import redis
from lib import fleet, queue_peers
from lib.fleet import Fleet, Size
from lib.server_cost import Cost, Meter, join, per

from videoqa.broker import make_celery
from videoqa.contract import Failure
from videoqa.jobs import Ledger, connect
from videoqa.settings import Settings
from videoqa_worker.embedded import Stack
from videoqa_worker.embedded.redis_server import RedisServer
from videoqa_worker.job.leases import LeaseKeeper
from videoqa_worker.service.reaper import Reaper

ROOT = Path(__file__).resolve().parents[2]

HELD = 16
"""Jobs whose leases one heartbeat renews."""
FAILED = 10
"""Failed jobs, older than all others, that `list` is to find."""
GRACE_S = 15.0
IDLE_WORKERS = 20
ROUNDS = 5
"""Times that both sizes are measured in turn, so that other work on the machine meets both."""
SLOW_MS = 10_000.0
"""A round that took longer is the last of its call."""
QUESTION = "What is moving?"

CONFIG = "auto-aof-rewrite-percentage 0\n"
"""A rewrite of the log would fall into some of the measurements."""


@dataclass(frozen=True)
class Plan:
    """Sizes and counts of a run."""

    workers: Sequence[int]
    tenants: Sequence[int]
    models: Sequence[int]
    queued: Sequence[int]
    calls: int
    idle_s: float
    jobs: int
    records: int
    messages: int

    def list_sizes(self) -> list[Size]:
        """Lists the smallest size, those with one number raised, and the largest."""
        axes = {
            name: sorted(getattr(self, name)) for name in ("workers", "tenants", "models", "queued")
        }
        least = {name: values[0] for name, values in axes.items()}
        raised = [
            Size(**least | {name: value}) for name, values in axes.items() for value in values[1:]
        ]
        most = Size(**{name: values[-1] for name, values in axes.items()})
        return list(dict.fromkeys([Size(**least), *raised, most]))


@dataclass
class Scene:
    """Costs of each call at one size, and at the smallest beside it."""

    size: Size
    calls: dict[str, Cost] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    """Valkey's CPU time for each call, relative to that at the smallest size: the median of the rounds."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "size": asdict(self.size),
            "calls": {
                name: cost.to_dict() | {"ratio": self.ratios[name]}
                for name, cost in self.calls.items()
            },
        }


Calls = Iterator[tuple[str, Callable[[int], object], int]]


def note(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextmanager
def serving() -> Iterator[tuple[Settings, Meter, redis.Redis]]:
    """Yields a private Valkey: settings for it, its meter and a client."""
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder) / "redis", extra=CONFIG) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as plain,
    ):
        yield Settings(redis_url=server.url, max_queued=10**8), Meter(plain), plain


# -- calls at each size


def measure_size(size: Size, least: Size, plan: Plan) -> Scene:
    """Measures each call at one size, and in turn at the smallest, so that both meet the same other work."""
    note(f"{size}")
    scene = Scene(size)
    with ExitStack() as stack:
        sides = [
            make_side(stack, each, plan) for each in ((least, size) if size != least else (size,))
        ]
        # Both lists of calls go on together: each call of a list relies on those before it.
        for steps in zip(*(calls for _, _, calls in sides), strict=True):
            name = steps[0][0]
            rounds: list[list[Cost]] = []
            for made, _, _ in sides:
                made.announce()
            for start, calls in split_calls(steps[0][2]):
                rounds.append(
                    [
                        meter.measure(call, calls=calls, first=start)
                        for (_, meter, _), (_, call, _) in zip(sides, steps, strict=True)
                    ]
                )
                if sum(cost.wall_ms * cost.calls for cost in rounds[-1]) > SLOW_MS:
                    break
            scene.calls[name] = join([costs[-1] for costs in rounds])
            scene.ratios[name] = statistics.median(
                costs[-1].server_ms / costs[0].server_ms for costs in rounds if costs[0].server_ms
            )
            cost, ratio = scene.calls[name], scene.ratios[name]
            note(f"  {name:24} {cost.server_ms:9.3f} ms of Valkey {ratio:9.2f}")
    return scene


def split_calls(count: int) -> list[tuple[int, int]]:
    """Splits so many calls into rounds; returns the first call of each and their number."""
    size = max(1, count // ROUNDS)
    return [(start, size) for start in range(0, size * min(count, ROUNDS), size)]


def make_side(stack: ExitStack, size: Size, plan: Plan) -> tuple[Fleet, Meter, Calls]:
    """Makes a fleet of one size with its backlog, in a Valkey of its own."""
    settings, meter, _ = stack.enter_context(serving())
    made = Fleet(settings, size)
    stack.callback(made.close)
    fail_some(made)
    begun_s = time.monotonic()
    made.fill()
    note(f"  filled with {size.queued} in {time.monotonic() - begun_s:.0f} s")
    return made, meter, list_calls(made, stack, plan.calls)


def fail_some(made: Fleet) -> None:
    """Records the failed jobs that are older than all others."""
    for n in range(FAILED):
        made.client.submit(fleet.make_request(n))
        claim = fleet.claim(made.ledger, made.queues)
        assert claim is not None
        failure = Failure(code="model_error", message="made up", attempt=1)
        made.ledger.fail(claim.job_id, claim.token, failure, delay_s=0)


def list_calls(made: Fleet, stack: ExitStack, most: int) -> Calls:
    """Yields names of calls, the calls, and how often to make them; each relies on those before it."""
    client, ledger, tenants = made.client, made.ledger, made.size.tenants
    requests = [fleet.make_request(n % tenants) for n in range(most)]
    ids: list[str] = []
    yield "submit", lambda n: ids.append(client.submit(requests[n]).id), most
    yield "get, queued", lambda n: client.get(ids[n % len(ids)]), most
    claims: list[Any] = []
    yield "claim", lambda n: claims.append(fleet.claim(ledger, made.queues)), most
    held = [(claim.job_id, claim.token) for claim in claims[:HELD]]
    yield f"renew of {len(held)}", lambda n: ledger.renew(held, lease_s=fleet.LEASE_S), most
    yield "get, running", lambda n: client.get(held[n % len(held)][0]), most
    done = list(claims)
    yield "finish", lambda n: fleet.finish(ledger, done.pop()), len(claims)
    app = make_celery(made.settings)
    stack.callback(app.close)
    info = fleet.describe(made.settings.prefix, 0, 0)
    for name, every_s in (("reap", 0.0), ("reap, just done", 1e6)):
        reaper = Reaper(ledger, app, lambda: info, every_s=every_s, grace_s=GRACE_S)
        yield name, lambda n, reaper=reaper: reaper.reap(), max(5, most // 4)
    yield "announce", lambda n: ledger.announce(info), most
    yield "queues", lambda n: client.queues(), max(5, most // 10)
    for state in (None, "queued", "failed"):
        title = f"list, {state}" if state else "list"
        yield title, lambda n, state=state: client.list(state=state, limit=100), max(5, most // 20)


# -- an idle worker


def measure_idle(plan: Plan) -> dict[str, Cost]:
    """Measures a second of an idle worker: its reaper, announcement and lease keeper."""
    note("idle workers")
    found = {}
    with serving() as (settings, meter, _):
        quiet = meter.measure_for(plan.idle_s)
        found["Valkey by itself"] = quiet
        found["plain"] = _measure_idle(settings, meter, quiet, plan.idle_s)
        front = find_tls_front()
        if front is None:
            note("  not behind TLS: trustme is not installed")
            return found
        port = int(settings.redis_url.rpartition(":")[2].partition("/")[0])
        with tempfile.TemporaryDirectory() as folder, front(Path(folder) / "tls", port) as tls:
            password = settings.redis_url.partition("://:")[2].partition("@")[0]
            url = f"rediss://:{password}@localhost:{tls.port}/0?ssl_ca_certs={tls.ca}"
            secure = settings.model_copy(update={"redis_url": url})
            found["behind TLS"] = _measure_idle(secure, meter, quiet, plan.idle_s)
            time.sleep(0.5)  # the front hears of the closed connections
    return found


def find_tls_front() -> Any:
    """Returns the TLS that tests put before their Valkey, whose wheel is built without; None: it cannot run."""
    sys.path.append(str(ROOT / "tests"))
    try:
        from support.tls import TlsFront
    except ImportError:
        return None
    return TlsFront


def _measure_idle(settings: Settings, meter: Meter, quiet: Cost, seconds: float) -> Cost:
    with ExitStack() as stack:
        for number in range(IDLE_WORKERS):
            connection = connect(settings)
            stack.callback(connection.close)
            app = make_celery(settings)
            stack.callback(app.close)
            ledger = Ledger(connection, url=settings.redis_url, prefix=settings.prefix)
            info = fleet.describe(settings.prefix, number, 0)
            reaper = Reaper(ledger, app, lambda info=info: info, every_s=2.0, grace_s=GRACE_S)
            reaper.announce()
            stack.enter_context(LeaseKeeper(ledger, lease_s=30.0, heartbeat_s=1.0))
            stack.enter_context(reaper)
            time.sleep(2.0 / IDLE_WORKERS)  # rounds of different workers at different times
        time.sleep(3)  # connected, and beyond the first round
        return per(meter.measure_for(seconds), IDLE_WORKERS, less=per(quiet, IDLE_WORKERS))


def measure_quiet(seconds: float) -> Cost:
    """Measures a second of a Valkey that nobody uses."""
    with serving() as (_, meter, _):
        return meter.measure_for(seconds)


# -- one job with a real worker


def measure_job(plan: Plan) -> dict[str, Cost]:
    """Measures one job with a real worker and the demo model, and a second of that worker when idle."""
    sys.path.append(str(ROOT / "training"))
    from demo_world import sample_scene, write_clip

    note("jobs with the demo model")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = write_clip(sample_scene(random.Random(7), "single"), folder / "clip.mp4")
        environ = dict(os.environ) | {"VIDEOQA_CPU_THREADS": "1", "VIDEOQA_FILE_ROOTS": name}
        with Stack(folder / "stack", environ) as stack, stack.client() as client:
            stack.wait_until_ready(lambda state: None)
            quiet = measure_quiet(plan.idle_s)
            with redis.Redis.from_url(stack.redis.url, decode_responses=True) as plain:
                meter = Meter(plain)

                def ask(*, stream: bool = False, cache: str = "use") -> bool:
                    job = client.submit(
                        inputs=[clip.as_uri()], questions=[QUESTION], stream=stream, cache=cache
                    )
                    if stream:
                        list(client.stream(job.id, timeout_s=60))
                    client.wait(job.id, timeout_s=60)
                    return client.result(job.id).cached

                ask(cache="off"), ask(stream=True, cache="off"), ask()
                assert ask(), "an equal job is to be answered by the cache"
                idle = meter.measure_for(plan.idle_s)
                found = {"idle, each second": per(idle, less=quiet)}
                for title, call in (
                    ("one question", lambda n: ask(cache="off")),
                    ("one question, streamed", lambda n: ask(stream=True, cache="off")),
                    ("cache hit", lambda n: ask()),
                ):
                    cost = meter.measure(call, calls=plan.jobs, most_s=30)
                    found[title] = per(cost, less=idle, seconds=cost.wall_ms / 1000)
                return found


# -- bytes of records


def measure_bytes(plan: Plan) -> dict[str, float]:
    """Measures the bytes that a job takes in each state, its tombstone, and a key of the answer cache."""
    note("bytes of records")
    found = {}
    with serving() as (settings, _, plain), ExitStack() as stack:
        made = Fleet(settings, Size(queued=0))
        stack.callback(made.close)
        made.client.submit(fleet.make_request(0))  # scripts and indexes are there
        claim = fleet.claim(made.ledger, made.queues)
        assert claim is not None
        fleet.finish(made.ledger, claim)
        empty = used_memory(plain)
        made.client.submit_many(fleet.make_request(0) for _ in range(plan.records))
        found["queued, with its bell"] = (used_memory(plain) - empty) / plan.records
        for queue in made.queues:
            plain.delete(queue)  # the broker's messages
        time.sleep(1.0)  # Valkey frees them in the background
        found["queued"] = (used_memory(plain) - empty) / plan.records
        claims = [fleet.claim(made.ledger, made.queues) for _ in range(plan.records)]
        found["running"] = (used_memory(plain) - empty) / plan.records
        for number, claim in enumerate(claims):
            assert claim is not None
            fleet.finish(made.ledger, claim, cache_key=f"{number:064x}")
        last = claims[-1]
        assert last is not None
        found["finished, with its cache key"] = (used_memory(plain) - empty) / plan.records
        kinds = {name.split(":")[1]: name for name in plain.scan_iter(f"*{last.job_id}*")}
        found |= {
            f"key {kind}:ID": plain.memory_usage(key, samples=0)
            for kind, key in sorted(kinds.items())
        }
        answer = made.ledger.keys.answer(f"{plan.records - 1:064x}")
        found["cache key"] = plain.memory_usage(answer, samples=0)
    return {name: round(float(value)) for name, value in found.items()}


def used_memory(plain: redis.Redis) -> int:
    return int(plain.info("memory")["used_memory"])


# -- jobs a second, beside peers


def measure_rates(plan: Plan) -> dict[str, dict[str, Any]]:
    """Measures messages a second of each peer, and jobs a second of ours, in processes of their own."""
    note("jobs a second")
    found: dict[str, dict[str, Any]] = {}
    for peer in queue_peers.PEERS:
        if not queue_peers.is_installed(peer):
            found[peer] = {"missing": f"pip install {peer}"}
            continue
        script = str(Path(queue_peers.__file__))
        with serving() as (settings, meter, _):
            found[peer] = {"version": version(peer)}
            for action in ("submit", "consume"):
                # One message is sent before the clock; the consumer's clock begins with its first.
                command = [script, action, peer, settings.redis_url, str(plan.messages)]
                found[peer] |= rate(meter, command, action, plan.messages)
    with serving() as (settings, meter, _), ExitStack() as stack:
        made = Fleet(settings, Size(queued=0))
        stack.callback(made.close)
        requests = [fleet.make_request(0) for _ in range(plan.messages)]
        made.client.submit(requests[0])
        ours = {}
        one = meter.measure(lambda n: made.client.submit(requests[n]), calls=plan.messages)
        many = meter.measure(lambda n: made.client.submit_many(requests), calls=1)
        ours["submit_per_s"] = round(1000 / one.wall_ms)
        ours["submit_server_ms"] = one.server_ms
        ours["submit_many_per_s"] = round(plan.messages * 1000 / many.wall_ms)
        ours["submit_many_server_ms"] = many.server_ms / plan.messages
        command = [__file__, "--work", settings.redis_url, "5", "1"]
        found["videoqa"] = ours | rate(meter, command, "consume", plan.messages)
    return found


def rate(meter: Meter, arguments: list[str], action: str, count: int) -> dict[str, Any]:
    """Runs a process that prints how many it has done in how many seconds."""
    done: dict[str, Any] = {}

    def run(_: int) -> None:
        output = subprocess.run(
            [sys.executable, *arguments],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        done.update(json.loads(output.stdout.splitlines()[-1]))

    try:
        cost = meter.measure(run, calls=1)
    except subprocess.CalledProcessError as error:
        return {f"{action}_failed": str(error)}
    return {
        f"{action}_per_s": round(done["count"] / done["seconds"]),
        f"{action}_server_ms": cost.server_ms / done["count"],
    }


# -- reports


def run(plan: Plan, parts: Sequence[str]) -> dict[str, Any]:
    begun_s = time.monotonic()
    found: dict[str, Any] = {}
    if "sizes" in parts:
        least, *others = plan.list_sizes()
        scenes = [measure_size(size, least, plan) for size in (least, *others)]
        found["sizes"] = [scene.to_dict() for scene in scenes]
    if "idle" in parts:
        found["idle"] = {name: cost.to_dict() for name, cost in measure_idle(plan).items()}
    if "job" in parts:
        found["job"] = {name: cost.to_dict() for name, cost in measure_job(plan).items()}
    if "bytes" in parts:
        found["bytes"] = measure_bytes(plan)
    if "rates" in parts:
        found["rates"] = measure_rates(plan)
    return found | {
        "wall_s": round(time.monotonic() - begun_s),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "server": describe_server(),
        "libraries": {name: find_version(name) for name in ("redis", "celery", "kombu")},
    }


def describe_server() -> str:
    with serving() as (settings, _, _), connect(settings) as client:
        info = client.info("server")
        return str(info.get("valkey_version") or info["redis_version"])


def find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


COLUMNS = (
    "Valkey, ms", "p50, ms", "p99, ms", "client, ms", "bytes sent", "bytes got", "commands",
    "socket reads",
)  # fmt: skip


def describe_size(size: dict[str, int]) -> str:
    return (
        f"{size['workers']:,} w, {size['tenants']:,} t, {size['models']:,} m, {size['queued']:,} q"
    )


def format_cost(cost: dict[str, Any]) -> list[str]:
    return [
        f"{cost['server_ms']:.3f}", f"{cost['p50_ms']:.2f}", f"{cost['p99_ms']:.2f}",
        f"{cost['client_ms']:.2f}", f"{cost['bytes_sent']:,.0f}", f"{cost['bytes_got']:,.0f}",
        f"{cost['commands']:.1f}", f"{cost['socket_reads']:.1f}",
    ]  # fmt: skip


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


def report(found: dict[str, Any]) -> None:
    """Prints tables in Markdown."""
    print(
        f"{found['machine']}, Python {found['python']}, Valkey {found['server']}, load {found['load']:.1f}, "
        f"{found['wall_s']} s\n\nw: workers, t: tenants, m: models, q: queued jobs; ratio: of Valkey's CPU time "
        "to that at the smallest size, measured in turn\n"
    )
    sizes = found.get("sizes", [])
    for name in sizes[0]["calls"] if sizes else ():
        print(f"### {name}\n")
        rows = []
        for each in sizes:
            cost = each["calls"][name]
            first, *rest = format_cost(cost)
            rows.append([describe_size(each["size"]), first, f"{cost['ratio']:.2f}", *rest])
        print_table(["size", COLUMNS[0], "ratio", *COLUMNS[1:]], rows)
    for part, title in (
        ("idle", "an idle worker's reaper and lease keeper, each second"),
        ("job", "one job with a worker and the demo model: submit, wait, result"),
    ):
        if part in found:
            print(f"### {title}\n")
            rows = [
                [name, *format_cost(cost), f"{cost['connections']:.2f}"]
                for name, cost in found[part].items()
            ]
            print_table(["", *COLUMNS, "new connections"], rows)
    if "bytes" in found:
        print("### bytes of a job\n")
        print_table(["", "bytes"], [[name, f"{n:,}"] for name, n in found["bytes"].items()])
    if "rates" in found:
        print("### jobs a second, one thread\n")
        fields = ("submit", "submit_many", "consume")
        rows = [
            [name, row.get("missing", row.get("version", ""))]
            + [format_rate(row, each) for each in fields]
            for name, row in found["rates"].items()
        ]
        print_table(["", "", *(f"{each}/s (Valkey ms each)" for each in fields)], rows)


def format_rate(row: dict[str, Any], action: str) -> str:
    if f"{action}_per_s" not in row:
        return "failed" if f"{action}_failed" in row else "-"
    return f"{row[f'{action}_per_s']:,} ({row[f'{action}_server_ms']:.3f})"


def compare(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Prints two runs beside each other: Valkey's CPU time, bytes, commands and socket reads."""

    def pair(was: Any, now: Any, form: str) -> str:
        return f"{was:{form}} -> {now:{form}}"

    def row(name: str, was: dict[str, Any], now: dict[str, Any]) -> list[str]:
        return [
            name,
            pair(was["server_ms"], now["server_ms"], ".3f"),
            pair(was["ratio"], now["ratio"], ".2f") if "ratio" in now else "-",
            f"{was['server_ms'] / now['server_ms']:.1f}" if now["server_ms"] else "-",
            pair(was["client_ms"], now["client_ms"], ".2f"),
            pair(was["bytes_sent"], now["bytes_sent"], ",.0f"),
            pair(was["bytes_got"], now["bytes_got"], ",.0f"),
            pair(was["commands"], now["commands"], ".1f"),
            pair(was["socket_reads"], now["socket_reads"], ".1f"),
        ]

    head = [
        "",
        "Valkey, ms",
        "ratio",
        "times less",
        "client, ms",
        "bytes sent",
        "bytes got",
        "commands",
        "socket reads",
    ]
    for was, now in zip(before.get("sizes", []), after.get("sizes", []), strict=False):
        if was["size"] != now["size"]:
            continue
        print(f"### {describe_size(now['size'])}\n")
        print_table(
            head,
            [row(n, was["calls"][n], now["calls"][n]) for n in was["calls"] if n in now["calls"]],
        )
    for part in ("idle", "job"):
        if part in before and part in after:
            print(f"### {part}\n")
            both = [name for name in before[part] if name in after[part]]
            print_table(head, [row(name, before[part][name], after[part][name]) for name in both])
    if "bytes" in before and "bytes" in after:
        print("### bytes\n")
        names = list(dict.fromkeys([*before["bytes"], *after["bytes"]]))
        rows = [[n, *(str(run["bytes"].get(n, "-")) for run in (before, after))] for n in names]
        print_table(["", "before", "after"], rows)


def plot(found: dict[str, Any], path: Path) -> None:
    """Draws Valkey's CPU time of each call relative to the smallest size; all axes are the same, and end at 4."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    sizes = found["sizes"]
    names = [describe_size(each["size"]) for each in sizes]
    calls = list(sizes[0]["calls"])
    columns = 4
    rows = -(-len(calls) // columns)
    figure, panels = pyplot.subplots(
        rows, columns, figsize=(3.6 * columns, 2.6 * rows), sharey=True, squeeze=False
    )
    for panel in panels.flat[len(calls) :]:
        panel.set_axis_off()
    for panel, call in zip(panels.flat, calls, strict=False):
        ratios = [each["calls"][call]["ratio"] for each in sizes]
        panel.barh(range(len(names)), [min(ratio, 4.0) for ratio in ratios], color="#c2410c")
        for row, ratio in enumerate(ratios):
            panel.annotate(
                f"{ratio:.2f}", (min(ratio, 3.4), row), (3, 0), textcoords="offset points",
                va="center", fontsize=7, color="white" if ratio > 3.4 else "#111827",
            )  # fmt: skip
        panel.axvline(1.5, color="#4b5563", lw=0.8, ls="--")
        panel.set_xlim(0, 4)
        panel.set_xticks(range(5))
        panel.tick_params(labelsize=7)
        panel.set_yticks(range(len(names)), names, fontsize=7)
        panel.set_title(f"{call}: {sizes[0]['calls'][call]['server_ms']:.3f} ms", fontsize=9)
    panels.flat[0].invert_yaxis()
    figure.suptitle(
        "Valkey's CPU time of a call, relative to the smallest size (dashed: 1.5 times)",
        fontsize=11,
    )
    figure.set_layout_engine("constrained")
    figure.savefig(path)


PARTS = ("sizes", "idle", "job", "bytes", "rates")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--tenants", type=int, nargs="+", default=[1, 1000, 5000])
    parser.add_argument("--models", type=int, nargs="+", default=[1, 50])
    parser.add_argument("--queued", type=int, nargs="+", default=[5_000, 100_000])
    parser.add_argument("--calls", type=int, default=200, help="times that each call is made")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="small sizes, in a minute or two")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the ratios; needs matplotlib"
    )
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--show", type=Path, metavar="FILE", help="report an earlier run's JSON")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        url, seconds, threads = args.work
        fleet.work(Settings(redis_url=url), float(seconds), int(threads))
        return
    if args.compare:
        compare(*(json.loads(path.read_text()) for path in args.compare))
        return
    if args.show:
        found = json.loads(args.show.read_text())
    elif args.quick:
        plan = Plan([1, 20], [1, 50], [1, 3], [200, 1000], 30, 3.0, 3, 300, 500)
        found = run(plan, args.parts)
    else:
        plan = Plan(
            args.workers, args.tenants, args.models, args.queued, args.calls, 20.0, 20, 5000, 5000
        )
        found = run(plan, args.parts)
    if args.plot:
        plot(found, args.plot)
    if args.json:
        print(json.dumps(found))
    else:
        report(found)


if __name__ == "__main__":
    main()
