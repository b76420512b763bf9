"""The private servers: one stack a folder, and a server that does not come up is one clear error."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from videoqa.errors import ConfigurationError
from videoqa_worker.embedded import Stack
from videoqa_worker.embedded.redis_server import RedisServer, find_server


def test_a_second_stack_in_a_folder_is_refused_while_the_first_one_starts(tmp_path: Path) -> None:
    environ = {"VIDEOQA_MODEL": "/nowhere", "PATH": "/usr/bin"}
    with (
        Stack(tmp_path, environ),
        pytest.raises(ConfigurationError, match="already runs"),
        Stack(tmp_path, environ),
    ):
        pass
    with Stack(tmp_path, environ) as again:
        assert again.redis.running()


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="VIDEOQA_HOME"), Stack(tmp_path / "file", {}):
        pass


MUTE = """#!{python}
import re, socket, sys, time
port = int(re.search(r"^port (\\d+)", open(sys.argv[1]).read(), re.M)[1])
with socket.create_server(("127.0.0.1", port)):
    time.sleep(60)
"""


def test_a_redis_that_takes_connections_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    binary = tmp_path / "redis-server"
    binary.write_text(MUTE.format(python=sys.executable))
    binary.chmod(0o755)
    begun = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"was not ready within 1\.5 s"):
        RedisServer(
            tmp_path / "redis", environ={"VIDEOQA_REDIS_SERVER": str(binary)}, timeout_s=1.5
        )
    assert time.monotonic() - begun < 20


def test_a_server_may_be_named_by_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").symlink_to(find_server({}))
    monkeypatch.chdir(tmp_path)
    with RedisServer(tmp_path / "redis", environ={"VIDEOQA_REDIS_SERVER": "./here"}) as server:
        assert server.running()
