"""`videoqa caption` against a real Valkey and production workers: answered once, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from faults.rig import Rig
from support.cli import call_command, clean_environment, start_command
from support.processes import wait_until
from support.stack import WorkerProcess

from videoqa.client import Client
from videoqa.storage import file_path
from videoqa_worker.embedded import S3Server

Caption = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Workers that can be killed, and that may write anywhere."""
    with Rig("caption", 1, environ={"VIDEOQA_OUTPUT_ROOTS": "/"}) as rig:
        rig.start(2)
        yield rig


@pytest.fixture
def environment(rig: Rig) -> dict[str, str]:
    places = {"VIDEOQA_REDIS_URL": rig.redis.url, "VIDEOQA_PREFIX": "faults"}
    return clean_environment() | places | rig.environ


@pytest.fixture
def caption(environment: dict[str, str]) -> Caption:
    def caption(*args: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return call_command("caption", *args, environment=environment, stdin=stdin)

    return caption


@pytest.fixture
def videos(rig: Rig, tmp_path: Path) -> Path:
    """40 clips of the rig's three scenes."""
    folder = tmp_path / "videos"
    for n in range(40):
        path = folder / f"{n % 4}" / f"clip {n:02}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rig.clips[n % 3].read_bytes())
    return folder


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


def generated(rig: Rig) -> Counter[str]:
    """Counts how often the model was asked, by custom_id, as far as records tell."""
    runs: Counter[str] = Counter()
    for key in rig.plain.scan_iter("faults:job:*"):
        job = rig.client.get(str(key).rpartition(":")[2])
        if job.custom_id is not None:
            events = rig.ledger.read_events(job.id)
            runs[job.custom_id] += sum(
                event.stage == "generating" and event.type == "stage" for event in events
            )
    return runs


def kill_a_worker(rig: Rig) -> int:
    """Returns how many jobs it held; those of the command are not the rig's own."""
    victim = rig.workers[0]
    victim.kill_group()
    time.sleep(0.1)
    for key in rig.plain.scan_iter("faults:job:*"):
        rig.acknowledged.setdefault(str(key).rpartition(":")[2], 0)
    held = len(rig.held_by(victim))
    rig.acknowledged.clear()
    rig.replace(victim)
    return held


COLORS = ("red", "green", "blue")
ASK = ("--question", "What color is it?", "--frames", "4")


def check_all(output: Path, count: int = 40) -> None:
    found = lines(output)
    assert len(found) == len({line["custom_id"] for line in found}) == count
    for line in found:
        assert line["ok"], line
        n = int(line["custom_id"].split()[-1].removesuffix(".mp4"))
        assert COLORS[n % 3] in line["answers"][0]["text"].lower()
        assert json.loads(file_path(line["result"]).read_text())


def start(environment: dict[str, str], *args: str | Path) -> subprocess.Popen[str]:
    """Starts the command in a process of its own, which can be killed."""
    return start_command("caption", *args, "--json", environment=environment)


def wait_for_lines(output: Path, count: int) -> None:
    file = output / "results.jsonl"
    wait_until(lambda: file.is_file() and len(lines(output)) >= count)


def test_an_archive_goes_on_after_its_producer_and_a_worker_were_killed(
    rig: Rig, environment: dict[str, str], caption: Caption, videos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    args = (videos, *ASK, "--output", output, "--in-flight", "8")
    first = start(environment, *args)
    wait_for_lines(output, 8)
    first.kill()
    first.communicate()
    before = {path.name: path.stat().st_mtime_ns for path in (output / "results").iterdir()}
    held = kill_a_worker(rig)
    done = caption(*args, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["done"] + told["skipped"], told["failed"]) == (40, 0)
    assert told["skipped"] >= len(before) >= 8
    assert told["output"] == output.as_uri()
    check_all(output)
    after = {path.name: path.stat().st_mtime_ns for path in (output / "results").iterdir()}
    assert {name: after[name] for name in before} == before, "nothing is done twice"
    runs = generated(rig)
    assert sum(runs.values()) - 40 <= held
    again = json.loads(caption(*args, "--json").stdout)
    assert (again["done"], again["skipped"], again["failed"]) == (0, 40, 0)
    assert generated(rig) == runs
    check_all(output)


def test_an_archive_survives_a_redis_that_loses_everything(
    rig: Rig, environment: dict[str, str], caption: Caption, videos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    args = (videos, *ASK, "--output", output, "--in-flight", "8")
    running = start(environment, *args)
    wait_for_lines(output, 8)
    rig.plain.flushall()
    text, noise = running.communicate(timeout=100)
    assert running.returncode == 0, (text, noise)
    assert json.loads(text)["done"] == 40
    check_all(output)
    rig.plain.flushall()
    rig.wait_ready(2)
    again = json.loads(caption(*args, "--json").stdout)
    assert (again["done"], again["skipped"]) == (0, 40)


def test_one_bad_video_is_one_error_line_until_failures_are_tried_again(
    caption: Caption, videos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    bad = videos / "0" / "bad.mp4"
    bad.write_bytes(b"<html>not found</html>" * 50)
    not_utf8 = Path(os.fsdecode(os.fsencode(videos / "0") + b"/caf\xe9.mp4"))
    not_utf8.write_bytes((videos / "0" / "clip 00.mp4").read_bytes())
    args = (videos / "0", *ASK, "--output", output)
    done = caption(*args)
    assert done.returncode == 1
    assert "11 done, 0 done before, 1 failed" in done.stdout
    assert r"caf\xe9.mp4" in {line["custom_id"] for line in lines(output) if line["ok"]}
    assert "bad.mp4: " in done.stderr
    (line,) = [line for line in lines(output) if not line["ok"]]
    assert (line["custom_id"], line["error"]["code"]) == ("bad.mp4", "not_a_video")
    assert json.loads((output / "failed/bad.mp4.json").read_text())["job_id"] == line["job_id"]
    again = json.loads(caption(*args, "--json").stdout)
    assert (again["done"], again["skipped"], again["failed"]) == (0, 11, 1)
    bad.write_bytes((videos / "0" / "clip 00.mp4").read_bytes())
    mended = caption(*args, "--retry-failed", "--json")
    assert mended.returncode == 0
    assert json.loads(mended.stdout)["done"] == 1
    assert list((output / "failed").iterdir()) == []
    assert {line["ok"] for line in lines(output)} == {True}


def test_changed_questions_are_asked_and_unchanged_ones_are_not(
    caption: Caption, videos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    entries = [
        {"custom_id": f"{n}", "url": f"videos/{n}/clip 0{n}.mp4", "sampling": {"frames": 4}}
        for n in range(4)
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    args = (path, "-q", "What color is it?", "-o", output, "--json", "--order", "input")
    assert json.loads(caption(*args).stdout)["done"] == 4
    assert [line["custom_id"] for line in lines(output)] == ["0", "1", "2", "3"]
    entries[2]["question"] = "What is moving?"
    entries.reverse()
    path.write_text("\n".join(map(json.dumps, entries)))
    again = json.loads(caption(*args).stdout)
    assert (again["done"], again["skipped"]) == (1, 3)
    assert [line["custom_id"] for line in lines(output)] == ["3", "2", "1", "0"]
    assert lines(output)[1]["answers"][0]["question"] == "What is moving?"
    # Back to the first question: the row's own earlier object is replaced, a foreign one is not.
    del entries[1]["question"]
    path.write_text("\n".join(map(json.dumps, entries)))
    again = json.loads(caption(*args).stdout)
    assert (again["done"], again["skipped"]) == (1, 3)
    assert lines(output)[1]["answers"][0]["question"] == "What color is it?"
    foreign = output / "results" / "2.json"
    foreign.write_text("{}")
    for text, failed in (("{}", 1), ("", 0)):
        foreign.write_text(text) if text else foreign.unlink()
        done = caption(*args)
        assert json.loads(done.stdout)["failed"] == failed, done.stderr
        assert ("output_conflict" in (output / "results.jsonl").read_text()) is bool(failed)
        assert text in foreign.read_text()


def test_results_that_were_deleted_are_taken_from_redis(
    rig: Rig, caption: Caption, videos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    args = (videos / "1", *ASK, "-o", output, "--json")
    assert caption(*args).returncode == 0
    runs = generated(rig)
    for path in (output / "results").iterdir():
        path.unlink()
    assert json.loads(caption(*args).stdout)["done"] == 10
    assert len(lines(output)) == len(list((output / "results").iterdir())) == 10
    assert generated(rig) == runs


def test_tables_and_subtitles_are_written_beside(
    caption: Caption, videos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    theirs = videos / "2" / "clip 02.vtt"
    theirs.write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nby hand\n")
    args = (videos / "2", *ASK, "-o", output, "--json")
    flags = ("--format", "parquet", "--format", "csv", "--subtitles", "vtt", "--beside-videos")
    done = caption(*args, *flags)
    assert done.returncode == 0, done.stderr
    table = pyarrow.parquet.read_table(output / "results.parquet")
    assert table.num_rows == 10
    assert [row["custom_id"] for row in table.to_pylist()] == [
        line["custom_id"] for line in lines(output)
    ]
    assert all(len(row["frames"]) == 4 and row["ok"] for row in table.to_pylist())
    text = (videos / "2" / "clip 06.vtt").read_text()
    assert text.startswith("WEBVTT\n\nNOTE videoqa ")
    assert "00:00:00.000 --> 00:00:01.000\n" in text
    assert "by hand" in theirs.read_text(), "a file that is not ours stays"
    assert (output / "subtitles" / "clip 02.mp4.vtt").is_file()
    assert caption(*args, "--subtitles", "srt").returncode == 0
    srt = (output / "subtitles" / "clip 02.mp4.srt").read_text()
    assert not (videos / "2" / "clip 02.srt").exists()
    assert srt.startswith("1\n00:00:00,000 --> 00:00:01,000\n")


def test_long_videos_are_captioned_segment_by_segment(
    caption: Caption, videos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    args = (videos / "1", *ASK, "-o", output, "--segments", "0.5", "--summary")
    done = caption(*args, "--format", "parquet", "--subtitles", "vtt")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("note: the model demo cannot summarize")
    found = lines(output)
    assert len(found) == 10
    for line in found:
        assert [(part["start"], part["end"]) for part in line["segments"]] == [(0, 0.5), (0.5, 1)]
        assert [answer["question_id"] for answer in line["answers"]] == ["summary"]
    table = pyarrow.parquet.read_table(output / "results.parquet").to_pylist()
    for row, line in zip(table, found, strict=True):
        texts = [part["answers"][0]["text"] for part in row["segments"]]
        assert texts == [part["answers"][0]["text"] for part in line["segments"]]
        assert len(row["segments"][1]["frames"]) == 4
    text = (output / "subtitles" / "clip 01.mp4.vtt").read_text()
    assert text.count(" --> ") == 2
    assert "\n\n00:00:00.500 --> 00:00:01.000\n" in text
    (output / "results.jsonl").unlink()
    assert json.loads(caption(*args, "--json").stdout)["skipped"] == 10
    again = {line["custom_id"]: line["segments"] for line in lines(output)}
    assert again == {line["custom_id"]: line["segments"] for line in found}


def test_wrong_usage_ends_with_status_2_before_anything_starts(
    caption: Caption, videos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"custom_id": "a", "url": "a.mp4"}\n{\n')
    output = tmp_path / "out"
    for args, says in (
        ((path, *ASK), "line 2: is not JSON"),
        ((videos,), "line 1: got no question, expected --question"),
        ((videos, *ASK, "--order", "random"), "expected completion or input"),
        ((videos, *ASK, "--format", "xml"), "expected jsonl or csv or parquet"),
        ((videos, *ASK, "--subtitles", ""), "expected vtt or srt"),
        ((videos, *ASK, "--beside-videos"), "without --subtitles"),
        ((tmp_path / "none", *ASK), "there is no"),
    ):
        done = caption(*args, "-o", output)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert says in done.stderr
    assert not output.exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_how_to_go_on(
    environment: dict[str, str], caption: Caption, videos: Path, tmp_path: Path, how: signal.Signals
) -> None:
    output = tmp_path / "out"
    args = (videos, *ASK, "-o", output, "--in-flight", "1")
    running = start(environment, *args)
    wait_for_lines(output, 4)
    running.send_signal(signal.SIGSTOP)  # else it may be done before the second run looks
    assert len(lines(output)) < 40
    second = caption(*args)
    running.send_signal(signal.SIGCONT)
    assert (second.returncode, "another run" in second.stderr) == (6, True)
    running.send_signal(how)
    _, noise = running.communicate(timeout=60)
    assert running.returncode == 130, noise
    assert "the same command continues" in noise
    assert caption(*args).returncode == 0
    check_all(output)


def test_s3_is_source_and_output(
    stack_client: Client, worker: WorkerProcess, s3_server: S3Server, videos: Path
) -> None:
    s3 = s3_server.client()
    for path in sorted((videos / "3").iterdir()):
        s3.put_object(Bucket="open", Key=f"archive/a b/{path.name}", Body=path.read_bytes())
    s3.put_object(Bucket="open", Key="archive/readme.txt", Body=b"no video")
    settings = stack_client.settings
    places = {"VIDEOQA_REDIS_URL": settings.redis_url, "VIDEOQA_PREFIX": settings.prefix}
    environment = clean_environment() | s3_server.environment() | places
    args = ["s3://open/archive/", *ASK, "--output", "s3://open/answers/", "--format", "parquet",
            "--subtitles", "srt", "--beside-videos", "--order", "input"]  # fmt: skip
    running = start(environment, *args)
    text, noise = running.communicate(timeout=100)
    body = s3.get_object(Bucket="open", Key="answers/results.jsonl")["Body"].read().decode()
    assert running.returncode == 0, (text, noise, body)
    assert json.loads(text)["done"] == 10
    body = s3.get_object(Bucket="open", Key="answers/results.jsonl")["Body"].read().decode()
    found = [json.loads(line) for line in body.splitlines()]
    names = [f"a b/{path.name}" for path in sorted((videos / "3").iterdir())]
    assert [line["custom_id"] for line in found] == names
    keys = {item["Key"] for item in s3.list_objects_v2(Bucket="open", Prefix="a")["Contents"]}
    assert {f"answers/results/{name.replace('/', '--')}.json" for name in names} <= keys
    assert {f"archive/{name.replace('.mp4', '.srt')}" for name in names} <= keys
    assert "answers/results.parquet" in keys
    again = start(environment, *args)
    assert json.loads(again.communicate(timeout=100)[0])["skipped"] == 10
