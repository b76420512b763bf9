"""Nothing of a fetched file stays behind: not after errors, not after a killed process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fix_servers import HttpServer, Route

from videoqa.errors import JobCanceled, SpoolFull
from videoqa_worker.source import SourceConfig, Sources


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_the_spooled_file_is_gone_on_any_exit(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.routes["/a"] = Route(bytes(1000))
    config = SourceConfig(spool_dir=tmp_path, private_addresses=True)
    with Sources(config) as sources:
        with sources.open(http_server.url("/a")) as copy:
            assert files_below(tmp_path) == [copy.path]
        assert files_below(tmp_path) == []
        with pytest.raises(ZeroDivisionError), sources.open(http_server.url("/a")):
            raise ZeroDivisionError
        assert files_below(tmp_path) == []

        def check() -> None:
            if files_below(tmp_path):
                raise JobCanceled("canceled")

        with pytest.raises(JobCanceled), sources.open(http_server.url("/a"), check=check):
            pass
        assert files_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from videoqa_worker.source.spool import Spool\n"
        f"spool = Spool(Path({str(tmp_path)!r}), 1 << 30)\n"
        "with spool.file() as (path, room), path.open('wb') as file:\n"
        "    file.truncate(1 << 30)\n"
        "    print(path, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().decode().strip())
        with Sources(SourceConfig(spool_dir=tmp_path)):
            assert left.exists(), "a living process keeps its files"
        os.kill(process.pid, signal.SIGKILL)
    assert left.exists()
    with Sources(SourceConfig(spool_dir=tmp_path)):
        assert not left.parent.exists()


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    with (
        Sources(SourceConfig(spool_dir=tmp_path)) as one,
        Sources(SourceConfig(spool_dir=tmp_path)),
    ):
        assert len(list(tmp_path.iterdir())) == 3
        one.close()
        assert len(list(tmp_path.iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_full_disk_is_said_to_be_one(http_server: HttpServer, tmp_path: Path) -> None:
    import resource

    http_server.routes["/a"] = Route(bytes(3_000_000))
    config = SourceConfig(spool_dir=tmp_path, private_addresses=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Sources(config) as sources:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        try:
            with (
                pytest.raises(SpoolFull, match="no space"),
                sources.open(http_server.url("/a")),
            ):
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        assert files_below(tmp_path) == []
