"""WorkerProfile: seconds by stage of some jobs, and how well the worker feeds its engine.

The figure for that is tokens a second of the worker, divided by those of its engine alone: after the jobs, the same
engine is given the same questions again, all at once and with their prompts built, so that nothing holds it up.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from videoqa import errors
from videoqa.contract import Warn
from videoqa_worker.engine import Answering, DeviceMemory, Engine, Generated, MediaQuestion, Stats
from videoqa_worker.job.tally import AttemptTally
from videoqa_worker.prompt import FrameInput, PreparedMedia

__all__ = ["ProfiledEngine", "WorkerProfile", "describe_profile"]

KEPT_BYTES = 2 << 30
"""Most bytes of pictures that are held for the engine alone; further questions are not asked again."""
STAGES = ("queued", "fetching", "sampling", "generating", "storing", "attempt")


class ProfiledEngine:
    """An engine that keeps the questions which pass through it."""

    def __init__(self, engine: Answering) -> None:
        self.engine = engine
        self.questions: list[tuple[tuple[FrameInput, ...], MediaQuestion]] = []
        """Frames of each question, and the question without its media."""
        self.asked = 0
        self._kept_bytes = 0
        self._known: set[tuple[int, ...]] = set()
        self._lock = threading.Lock()
        self._is_keeping = True

    def ask(self, question: MediaQuestion) -> Future[Generated]:
        """Queues a question, as `Answering.ask` does."""
        with self._lock:
            if self._is_keeping:
                self._keep(question)
        return self.engine.ask(question)

    def _keep(self, question: MediaQuestion) -> None:
        self.asked += 1
        media = question.media
        frames = tuple(media.media if isinstance(media, PreparedMedia) else media)
        if _name_frames(frames) not in self._known:
            size = sum(pixels.nbytes for frame in frames for pixels in frame.frames)
            if self._kept_bytes + size > KEPT_BYTES:
                return
            self._kept_bytes += size
            self._known.add(_name_frames(frames))
        self.questions.append((frames, replace(question, media=())))

    def end(self) -> None:
        """Keeps no further questions."""
        with self._lock:
            self._is_keeping = False

    def start(self) -> None:
        """Starts the engine."""
        self.engine.start()

    def close(self) -> None:
        """Closes the engine."""
        self.engine.close()

    @property
    def ready(self) -> bool:
        return self.engine.ready

    @property
    def stats(self) -> Stats:
        return self.engine.stats

    @property
    def revision(self) -> str | None:
        return self.engine.revision

    @property
    def prompt_form(self) -> str | None:
        return self.engine.prompt_form

    @property
    def device(self) -> str:
        return self.engine.device

    def measure_device(self) -> DeviceMemory | None:
        """Returns the memory of the device, as `Answering.measure_device` does."""
        return self.engine.measure_device()

    @property
    def stated_generation(self) -> Mapping[str, Any]:
        return self.engine.stated_generation

    def warn_of(self, media: Sequence[FrameInput]) -> tuple[Warn, ...]:
        """Returns the engine's remarks on answers about these media."""
        return self.engine.warn_of(media)

    @property
    def stated_sampling(self) -> tuple[int | None, float | None]:
        return self.engine.stated_sampling

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """Remarks on all of the engine's answers."""
        return self.engine.warnings


def _name_frames(frames: Iterable[FrameInput]) -> tuple[int, ...]:
    """Returns what tells the pictures of one job from those of others, as long as both are held."""
    return tuple(map(id, frames))


@dataclass(frozen=True)
class _Run:
    """Answers of an engine over some time."""

    tokens: int
    seconds: float
    steps: int = 0
    rows: int = 0

    def describe(self) -> dict[str, Any]:
        return {
            "output_tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "tokens_a_second": round(self.tokens / self.seconds, 2) if self.seconds else None,
            "mean_batch": round(self.rows / self.steps, 2) if self.steps else None,
        }


class WorkerProfile:
    """Observes the first attempts of a worker, and then ends it. Thread-safe."""

    def __init__(
        self,
        path: Path,
        jobs: int,
        *,
        stop: Callable[[], object] = lambda: os.kill(os.getpid(), signal.SIGTERM),
    ) -> None:
        """
        Arguments:
            path: file of the report.
            jobs: attempts after which the worker ends.
            stop: called once these have ended.
        """
        self._path = path
        self._jobs = jobs
        self._stop = stop
        self._tallies: list[AttemptTally] = []
        self._lock = threading.Lock()
        self._engine: ProfiledEngine | None = None
        self._flame: _FlameGraph | None = None

    def watch(self, engine: Answering) -> Answering:
        """Returns the engine with its questions kept."""
        self._engine = ProfiledEngine(engine)
        return self._engine

    def begin(self) -> None:
        """Begins the flame graph, where py-spy is installed; the model is loaded by now."""
        self._flame = _FlameGraph(self._path.with_suffix(".svg"))

    def __call__(self, tally: AttemptTally) -> None:
        """Notes an attempt that is over."""
        with self._lock:
            self._tallies.append(tally)
            is_last = len(self._tallies) == self._jobs
        if is_last:
            self._stop()

    def write(self) -> dict[str, Any]:
        """Asks the engine alone, writes the report and returns it; all attempts are over, and the engine runs still."""
        flame = self._flame.end() if self._flame is not None else {"file": None, "why": "not begun"}
        report = self._describe() | {"flame_graph": flame}
        self._path.write_text(json.dumps(report, indent=1) + "\n")
        return report

    def _describe(self) -> dict[str, Any]:
        tallies = [*self._tallies]
        values: dict[str, list[float]] = defaultdict(list)
        for tally in tallies:
            values["queued"].append(tally.queued_s)
            values["attempt"].append(tally.total_s)
            for stage, seconds in tally.seconds.items():
                values[stage].append(max(0.0, seconds))
        report = {
            "attempts": len(tallies),
            "outcomes": dict(Counter(tally.outcome for tally in tallies)),
            "stages": {
                stage: _describe_seconds(values[stage]) for stage in STAGES if values[stage]
            },
        }
        if tallies and self._engine is not None:
            report["engine"] = self._compare(tallies, self._engine)
        return report

    def _compare(self, tallies: Sequence[AttemptTally], engine: ProfiledEngine) -> dict[str, Any]:
        engine.end()
        begun_s = min(tally.begun_s for tally in tallies)
        ended_s = max(tally.begun_s + tally.total_s for tally in tallies)
        tokens = sum(answer.output_tokens for tally in tallies for answer in tally.answers)
        stats = engine.stats
        in_worker = _Run(tokens, ended_s - begun_s, stats.steps, stats.rows)
        alone, failure = None, None
        try:
            alone = _ask_again(engine.engine, engine.questions)
        except errors.VideoQAError as error:
            failure = f"{error.code}: {error}"
        found: dict[str, Any] = {
            "device": engine.device,
            "in_worker": in_worker.describe(),
            "alone": alone.describe() if alone is not None else None,
            "questions": engine.asked,
            "questions_asked_again": len(engine.questions),
            "fed": None,
        }
        if alone is not None and alone.tokens and in_worker.seconds:
            rates = in_worker.tokens / in_worker.seconds, alone.tokens / alone.seconds
            found["fed"] = round(rates[0] / rates[1], 3)
        if failure is not None:
            found["why"] = failure
        return found


def _ask_again(
    engine: Answering, questions: Sequence[tuple[tuple[FrameInput, ...], MediaQuestion]]
) -> _Run:
    """Asks the questions at once, with built prompts where the engine is ours; waits for all answers."""
    prepared: dict[tuple[int, ...], PreparedMedia] = {}
    again = []
    for frames, question in questions:
        media = prepared.setdefault(_name_frames(frames), PreparedMedia(frames))
        again.append(
            replace(
                question,
                media=media,
                should_stop=lambda: False,
                on_text=None,
                on_progress=None,
            )
        )
    asks: list[Callable[[], Future[Generated]]]
    if isinstance(engine, Engine):
        engine.clear_caches()  # else it would have seen the pictures already
        asks = [*_build_prompts(engine, again)]
    else:
        asks = [lambda question=question: engine.ask(question) for question in again]  # type: ignore[misc]
    before, begun_s = engine.stats, time.monotonic()
    tokens = sum(future.result().output_tokens for future in [ask() for ask in asks])
    seconds, after = time.monotonic() - begun_s, engine.stats
    return _Run(tokens, seconds, after.steps - before.steps, after.rows - before.rows)


def _build_prompts(
    engine: Engine, questions: Sequence[MediaQuestion]
) -> Iterator[Callable[[], Future[Generated]]]:
    for question in questions:
        most = question.generation.max_new_tokens
        inputs = engine.prompter.build(
            question.media, question.text, system=question.system, max_new_tokens=most
        )
        request = question.to_request(inputs)
        yield lambda request=request: engine.submit(request)  # type: ignore[misc]


def _describe_seconds(values: Sequence[float]) -> dict[str, float]:
    ranked = sorted(values)

    def quantile(q: float) -> float:
        return round(ranked[min(len(ranked) - 1, int(q * len(ranked)))], 4)

    return {
        "count": len(ranked),
        "total_s": round(sum(ranked), 3),
        "p50_s": quantile(0.5),
        "p99_s": quantile(0.99),
    }


class _FlameGraph:
    """Records this process by py-spy, from outside, while the jobs run."""

    def __init__(self, path: Path) -> None:
        beside = Path(sys.executable).with_name("py-spy")
        program = str(beside) if beside.exists() else shutil.which("py-spy")
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        if program is None:
            self._why = "py-spy is not installed: pip install py-spy"
            return
        self._why = ""
        self._process = subprocess.Popen(
            [
                program, "record", "--pid", str(os.getpid()), "--output", str(path),
                "--rate", "50", "--nonblocking", "--threads",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self) -> dict[str, str | None]:
        """Ends the recording; returns its file, or the reason why there is none."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
            try:
                _, said = self._process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                _, said = self._process.communicate()
            if not self._path.exists():
                lines = said.decode(errors="replace").strip().splitlines()
                self._why = f"py-spy failed: {lines[-1] if lines else 'it said nothing'}"
        is_there = self._process is not None and self._path.exists()
        return {"file": str(self._path)} if is_there else {"file": None, "why": self._why}


def describe_profile(report: dict[str, Any], path: Path) -> str:
    """Returns the report as lines for people."""
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(report["outcomes"].items()))
    lines = [f"{report['attempts']} attempts: {outcomes}", ""]
    lines.append(f"{'stage':<12}{'count':>7}{'total s':>10}{'p50 s':>10}{'p99 s':>10}")
    for stage, row in report["stages"].items():
        lines.append(
            f"{stage:<12}{row['count']:>7}{row['total_s']:>10.2f}{row['p50_s']:>10.3f}{row['p99_s']:>10.3f}"
        )
    engine = report.get("engine")
    if engine is not None:
        lines += ["", *_describe_engine(engine)]
    flame = report["flame_graph"]
    lines += ["", f"flame graph: {flame['file'] or flame['why']}", f"report: {path}"]
    return "\n".join(lines)


def _describe_engine(engine: dict[str, Any]) -> Iterator[str]:
    for name, run in (("in the worker", engine["in_worker"]), ("engine alone", engine["alone"])):
        if run is not None:
            batch = f", mean batch {run['mean_batch']}" if run["mean_batch"] else ""
            yield f"{name:<15}{run['tokens_a_second']} tokens a second{batch}"
    if engine["fed"] is not None:
        yield (
            f"the worker reaches {engine['fed']:.0%} of what its engine alone does with the same "
            f"{engine['questions_asked_again']} of {engine['questions']} questions"
        )
    elif "why" in engine:
        yield f"the engine alone could not be measured: {engine['why']}"
