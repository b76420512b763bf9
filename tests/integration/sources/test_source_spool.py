"""Nothing of a fetched file stays behind: not after errors, not after a killed process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.servers import HttpServer, Route

from videoqa.errors import ConfigurationError, JobCanceled, SpoolFull
from videoqa_worker.settings import SourceConfig
from videoqa_worker.sources import Sources
from videoqa_worker.sources.spool.folder import Spool


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_folder_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="VIDEOQA_SPOOL_DIR"):
        Spool(tmp_path / "file" / "spool", 1 << 20)


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
        "import sys, time; from pathlib import Path; from videoqa_worker.sources.spool.folder import Spool\n"
        f"spool = Spool(Path({str(tmp_path)!r}), 1 << 30)\n"
        "with spool.create_file() as (path, reservation), path.open('wb') as file:\n"
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


def test_the_holes_of_a_sparse_file_take_no_room(tmp_path: Path) -> None:
    with (
        closing(Spool(tmp_path, 1 << 20)) as one,
        closing(Spool(tmp_path, 65536)) as other,
        one.create_file() as (path, _),
    ):
        with path.open("wb") as file:
            file.truncate(1 << 40)
        with other.create_file() as (_, reservation):
            reservation.grow_to(65536)
    with (
        closing(Spool(tmp_path, 1 << 20)) as one,
        closing(Spool(tmp_path, 65536)) as other,
        one.create_file() as (path, _),
        other.create_file() as (_, reservation),
    ):
        with path.open("wb") as file:
            file.truncate(1 << 40)
            file.seek(1 << 39)
            file.write(os.urandom(8192))
            file.flush()
            os.fsync(file.fileno())
        with pytest.raises(SpoolFull):
            reservation.grow_to(65536)


def test_the_quota_counts_what_is_fetched_and_gives_it_back(
    http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/a"] = Route(bytes(1_000_000))
    config = SourceConfig(
        spool_dir=tmp_path,
        private_addresses=True,
        download_below_bytes=0,
        spool_quota_bytes=300_000,
    )
    url = http_server.url("/a")
    with Sources(config) as sources:
        with sources.open(url) as one:
            one.ensure([(500_000, 600_000)])
            with sources.open(url) as two, pytest.raises(SpoolFull, match="quota of 300000"):
                two.ensure([(500_000, 600_000)])
            assert SpoolFull.retryable
        with sources.open(url) as two:
            two.ensure([(500_000, 600_000)])
        with sources.open(url) as three, pytest.raises(SpoolFull):
            three.ensure([(0, 1_000_000)])
        assert files_below(tmp_path) == []


@pytest.mark.parametrize("declares_length", [True, False])
def test_a_body_of_unknown_length_counts_as_it_comes(
    declares_length: bool, http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/a"] = Route(
        bytes(1_000_000), ranges=False, declares_length=declares_length
    )
    config = SourceConfig(spool_dir=tmp_path, private_addresses=True, spool_quota_bytes=999_999)
    with Sources(config) as sources, pytest.raises(SpoolFull), sources.open(http_server.url("/a")):
        pass
    assert files_below(tmp_path) == []


def test_what_other_processes_have_on_the_disk_counts_too(
    http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/a"] = Route(bytes(400_000))
    config = SourceConfig(spool_dir=tmp_path, private_addresses=True, spool_quota_bytes=600_000)
    with (
        Sources(config) as mine,
        Sources(config) as others,
        others.open(http_server.url("/a")),
        pytest.raises(SpoolFull),
    ):
        mine_copy(mine, http_server.url("/a"))
    with Sources(config) as mine:
        assert mine_copy(mine, http_server.url("/a")) == 400_000


def mine_copy(sources: Sources, url: str) -> int:
    with sources.open(url) as copy:
        return copy.size_bytes


def test_a_large_files_hole_cannot_be_filled_on_a_full_disk(
    http_server: HttpServer, tmp_path: Path
) -> None:
    http_server.routes["/a"] = Route(bytes(1_000_000))
    config = SourceConfig(spool_dir=tmp_path, private_addresses=True, download_below_bytes=0)
    with Sources(config) as sources, sources.open(http_server.url("/a")) as copy:
        os.truncate(copy.path, 0)
        copy.path.unlink()
        copy.path.symlink_to("/dev/full")
        with pytest.raises(SpoolFull, match="no space"):
            copy.ensure([(500_000, 600_000)])


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
