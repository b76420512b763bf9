"""`videoqa up` in one shell, `videoqa ask` in another, and nothing left after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from support.processes import GENEROUS_S, start
from support.scenes import Scene, write_clip

from videoqa.client import Client

VIDEOQA = str(Path(sys.executable).parent / "videoqa")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VIDEOQA_")}
    return clean | {"VIDEOQA_HOME": str(home), "VIDEOQA_CPU_THREADS": "1"}


@pytest.fixture(scope="module")
def shown() -> list[str]:
    """The lines that `videoqa up` printed until it was ready."""
    return []


@pytest.fixture(scope="module")
def up(home: Path, shown: list[str]) -> Iterator[subprocess.Popen[str]]:
    with start(
        [VIDEOQA, "up"],
        cwd=home,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            shown.append(line.rstrip())
            if "Ctrl-C stops everything" in line:
                break
        else:
            pytest.fail(f"videoqa up ended at its start: {shown}")
        yield process
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=GENEROUS_S)


def videoqa(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VIDEOQA, *arguments],
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=GENEROUS_S,
    )


@pytest.fixture(scope="module")
def clip(home: Path) -> Path:
    """A clip below the folder in which `videoqa up` was started."""
    (home / "clips").mkdir()
    return write_clip(Scene.single("green", "triangle", "down"), home / "clips" / "clip.mp4")


def test_ask_prints_the_right_answer_alone_on_stdout(
    up: subprocess.Popen[str], home: Path, clip: Path
) -> None:
    ended = videoqa(home, "ask", str(clip), "What is moving?")
    assert (ended.returncode, ended.stdout) == (0, "a green triangle\n"), ended.stderr
    assert ": running" in ended.stderr


def test_a_job_goes_through_the_commands_for_scripts(
    up: subprocess.Popen[str], home: Path, clip: Path
) -> None:
    questions = ("-q", "What color is it?", "-q", "How many shapes are there?")
    job_id = videoqa(home, "submit", str(clip), *questions).stdout.strip()
    assert videoqa(home, "wait", job_id, "--timeout", "30").returncode == 0
    assert json.loads(videoqa(home, "status", job_id, "--json").stdout)["state"] == "succeeded"
    result = json.loads(videoqa(home, "result", job_id, "--json").stdout)
    assert [answer["text"] for answer in result["answers"]] == ["green", "one"]
    assert len(result["frames"]) == 8
    path = Path(
        json.loads(videoqa(home, "status", job_id, "--json").stdout)["result_url"].removeprefix(
            "file://"
        )
    )
    assert json.loads(path.read_text())["answers"] == result["answers"]


def test_each_job_keeps_a_sheet_that_a_client_finds(
    up: subprocess.Popen[str], home: Path, clip: Path
) -> None:
    with Client.from_environment(environment(home)) as client:
        job = client.submit(inputs=[clip], questions=["What is it?"])
        client.wait(job.id, timeout_s=30)
        assert client.sheet(job.id) == (home / "sheets" / f"{job.id}.jpg").read_bytes()


def test_a_folder_is_captioned_into_another(
    up: subprocess.Popen[str], home: Path, clip: Path
) -> None:
    args = ("caption", str(clip.parent), "-q", "What is moving?", "-o")
    ended = videoqa(home, *args, str(home / "captions"), "--json")
    assert json.loads(ended.stdout)["done"] == 1, ended.stderr
    line = json.loads((home / "captions" / "results.jsonl").read_text())
    assert line["answers"][0]["text"] == "a green triangle"
    elsewhere = videoqa(home, *args, str(home.parent / "elsewhere"))
    assert elsewhere.returncode == 6
    assert "VIDEOQA_OUTPUT_ROOTS" in elsewhere.stderr


def test_a_failed_job_is_one_line_and_status_1(up: subprocess.Popen[str], home: Path) -> None:
    ended = videoqa(home, "ask", str(home / "none.mp4"), "What?")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1].endswith("(source_not_found)")


def test_it_prints_what_it_opens_and_opens_no_more(
    up: subprocess.Popen[str], home: Path, shown: list[str]
) -> None:
    told = dict(line.split(maxsplit=1) for line in shown if line and "  " in line)
    assert told["redis"].startswith("127.0.0.1:")
    *folders, samples = told["reads"].split(", ")
    assert folders == [str(Path.home()), str(home)]
    assert Path(samples).match("videoqa_worker/demo/clips"), "the clip that the page Ask offers"
    assert set(told["writes"].split(", ")) == {str(Path.home()), str(home), str(home / "results")}
    assert told["results"] == (home / "results").as_uri() + "/{job_id}.json"
    assert told["fetches"] == "from public addresses and this machine's network"
    ended = videoqa(home, "ask", "/etc/hostname", "What?")
    assert ended.returncode == 1
    assert "(source_denied)" in ended.stderr
    assert "`videoqa up` opens your home and the folder where it is started" in ended.stderr
    listening = {
        connection.laddr.ip
        for child in psutil.Process(up.pid).children(recursive=True)
        for connection in child.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_it_starts_a_gateway_with_a_key_and_a_link(
    up: subprocess.Popen[str], home: Path, shown: list[str], clip: Path
) -> None:
    told = dict(line.split(maxsplit=1) for line in shown if line and "  " in line)
    url = told["gateway"].partition(",")[0]
    path = home / "gateway.key"
    assert str(path) in told["gateway"]
    assert path.stat().st_mode & 0o777 == 0o600
    key = path.read_text().strip()
    asked = {"inputs": [clip.as_uri()], "questions": ["What is moving?"]}
    headers = {"authorization": f"Bearer {key}", "prefer": "wait=60"}
    done = httpx.post(f"{url}/v1/jobs", json=asked, headers=headers, timeout=90)
    assert done.json()["result"]["answers"][0]["text"] == "a green triangle", done.text
    sheet = httpx.get(f"{url}{done.json()['links']['sheet']}", headers=headers, timeout=90)
    assert (sheet.status_code, sheet.headers["content-type"]) == (200, "image/jpeg"), sheet.text
    (link,) = [line.split()[-1] for line in shown if line.startswith("in a browser")]
    with httpx.Client() as browser:
        assert browser.get(link).headers["location"] == "/"
        assert browser.get(f"{url}/v1/workers").json()["workers"]
    assert httpx.get(link).status_code == 401
    assert key not in "".join(shown)
    stack = psutil.Process(up.pid)
    assert not any(key in " ".join(each.cmdline()) for each in stack.children(recursive=True))


def test_no_command_line_has_the_password(up: subprocess.Popen[str], home: Path) -> None:
    password = (home / "redis" / "password").read_text()
    stack = psutil.Process(up.pid)
    lines = [" ".join(each.cmdline()) for each in (stack, *stack.children(recursive=True))]
    assert len(lines) >= 4
    assert not any(password in line for line in lines)
    assert (home / "redis").stat().st_mode & 0o077 == 0


def test_doctor_finds_all_well(up: subprocess.Popen[str], home: Path) -> None:
    ended = videoqa(home, "doctor", "--json")
    found = json.loads(ended.stdout)
    assert [check for check in found["checks"] if not check["ok"]] == []
    assert (ended.returncode, found["ok"]) == (0, True)


def test_a_second_stack_in_the_same_place_is_refused(up: subprocess.Popen[str], home: Path) -> None:
    ended = videoqa(home, "up")
    assert ended.returncode == 2
    assert "already runs" in ended.stderr


def test_ctrl_c_leaves_nothing_running(up: subprocess.Popen[str], home: Path) -> None:
    children = psutil.Process(up.pid).children(recursive=True)
    assert len(children) >= 2
    up.send_signal(signal.SIGINT)
    assert up.wait(GENEROUS_S) == 0
    assert psutil.wait_procs(children, timeout=GENEROUS_S)[1] == []
    assert videoqa(home, "status", "job_x").returncode == 4


def test_nothing_outlives_a_killed_stack(tmp_path: Path) -> None:
    if sys.platform != "linux":
        return  # elsewhere the kernel does not end orphans; docs/reference/cli.md says so
    with start(
        [VIDEOQA, "up"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("model"):
                break
        # Jobs may be submitted, and are told why they wait.
        with Client.from_environment({"VIDEOQA_HOME": str(tmp_path)}) as client:
            job = client.submit(inputs=["s3://b/k"], questions=["What is it?"])
            seen = [client.get(job.id), client.get(job.id)]  # it may begin while the first is read
            assert any(each.waiting_for or each.attempt > 0 for each in seen)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        outlived = psutil.wait_procs(children, timeout=GENEROUS_S)[1]
        assert outlived == [], "children outlived their stack"
