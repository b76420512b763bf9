"""ResultTable: whole files of whole lines, whenever its process is killed and however full the disk is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

SCRIPT = """
import csv, json, os, resource, signal, sys
from videoqa.bulk.output.formats import FORMATS
from videoqa.bulk.output.output_dir import OutputDir
from videoqa.bulk.output.outcomes import Outcome
from videoqa.bulk.index.output_index import IndexEntry
from videoqa.bulk.output.records import ResultLine
from videoqa.bulk.output.result_table import ResultTable
from videoqa.bulk.index.row_index import RowIndex
from videoqa.errors import OutputUnavailable
from videoqa.storage import ObjectStore

import pyarrow.parquet

folder, way = sys.argv[1:]

def run(names, model):
    with RowIndex() as index:
        output = OutputDir(folder, ObjectStore())
        with ResultTable(output, index, sum(FORMATS.values(), ())) as table:
            table.load(None)
            for name in names:
                line = ResultLine(custom_id=name, ok=True, model=model, job_id=f"{name} {model}", answers=[ANSWER])
                table.add(Outcome(line, IndexEntry(name, "digest", "1", "digest", job_id=line.job_id)))
                table.publish()
            table.publish()

ANSWER = {
    "question_id": "q1", "question": "What?", "text": "A cat.", "finish_reason": "stop",
    "input_tokens": 1, "output_tokens": 1,
}

def kill_at(number):
    left = [number]
    def hook(event, args):
        if event in ("open", "os.rename", "os.remove", "os.truncate"):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

def in_child(work):
    if os.fork() == 0:
        try:
            work()
        except OutputUnavailable as error:
            os._exit(0 if "free some space" in error.message else 3)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(3)
        os._exit(42)
    return os.wait()[1]

def die_at(number):
    kill_at(number) if way == "killed" else limit(500 * number)
    run(ROWS[10:11] + [f"new {number}"], f"model {number}")

ROWS = [f"row {n}" for n in range(40)]
in_child(lambda: run(ROWS, "old"))
number = ended = 0
while not ended:
    number += 1
    status = in_child(lambda: die_at(number))
    assert status in (signal.SIGKILL, 0, 42 << 8), (number, status)
    ended = status == 42 << 8
    data = open(f"{folder}/results.jsonl", "rb").read()
    print(number, status, len(data), flush=True)
    assert data.endswith(b"}\\n"), data[-100:]
    names = [line.split(b'"')[3].decode() for line in data.splitlines()]
    assert len(names) == len(set(names)) and set(names) >= set(ROWS), names
    table = pyarrow.parquet.read_table(f"{folder}/results.parquet", use_threads=False)
    assert set(table["custom_id"].to_pylist()) >= set(ROWS)
    pyarrow.parquet.read_table(f"{folder}/answers.parquet", use_threads=False)
    assert open(f"{folder}/answers.csv", "rb").read().endswith(b"\\r\\n")
    in_child(lambda: run([], ""))
    with open(f"{folder}/results.jsonl") as file:
        found = [json.loads(line) for line in file]
    rows = pyarrow.parquet.read_table(f"{folder}/results.parquet", use_threads=False).to_pylist()
    assert [(line["custom_id"], line["model"]) for line in found] == [
        (row["custom_id"], row["model"]) for row in rows
    ]
    rows = pyarrow.parquet.read_table(f"{folder}/answers.parquet", use_threads=False).to_pylist()
    with open(f"{folder}/answers.csv", newline="") as file:
        flat = list(csv.DictReader(file))
    for table in (rows, flat):
        assert [(line["custom_id"], line["model"]) for line in found] == [
            (row["custom_id"], row["model"]) for row in table
        ]
print("ended", number)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits the size of files")
@pytest.mark.parametrize("way", ["killed", "full"])
def test_a_run_that_dies_at_any_step_leaves_whole_lines_and_loses_none(
    way: str, tmp_path: Path
) -> None:
    """Kills a run at each file that it opens, renames or removes; or lets it have so many bytes a file."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path, way], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) > 5
    found = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    table = pyarrow.parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert [(line["custom_id"], line["model"]) for line in found] == [
        (row["custom_id"], row["model"]) for row in table
    ]
    assert sum(line["model"] == "old" for line in found) == 39
    assert {path.name for path in tmp_path.iterdir()} == {
        "answers.csv",
        "answers.parquet",
        "index.jsonl",
        "results.jsonl",
        "results.parquet",
    }
