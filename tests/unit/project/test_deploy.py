"""Promises of deploy/, as far as they can be checked without Docker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.gateway import serve_gateway

from videoqa import Settings
from videoqa.cli import doctor
from videoqa.contract import WorkerInfo
from videoqa.gateway import GatewaySettings
from videoqa.jobs import Ledger, connect
from videoqa_worker.embedded.process import ServerProcess, free_port
from videoqa_worker.embedded.redis_server import find_server
from videoqa_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = ("worker", "worker-cpu")
OWN = {row.name for kind in (WorkerSettings, GatewaySettings) for row in kind.table()}
COMPOSE_ONLY = {"VIDEOQA_CPU_MODEL"}
PASSWORD = "4f9d1c2ab7"


def example() -> dict[str, str]:
    lines = (DEPLOY / "env.example").read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    return dict(pairs)


# -- compose


def test_the_services_are_valkey_workers_a_gateway_and_a_client() -> None:
    assert set(SERVICES) == {"valkey", "client", "gateway", *WORKERS}
    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]
    assert SERVICES["client"]["profiles"] == ["tools"]
    assert "profiles" not in SERVICES["worker"]
    (gpu,) = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (gpu["driver"], gpu["count"], gpu["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert "deploy" not in SERVICES["worker-cpu"]


def test_every_long_running_service_restarts_and_has_a_health_check() -> None:
    for name in ("valkey", "gateway", *WORKERS):
        assert SERVICES[name]["restart"] == "unless-stopped"
        assert {"test", "interval", "timeout", "retries"} <= set(SERVICES[name]["healthcheck"])
    for name in (*WORKERS, "gateway", "client"):
        assert SERVICES[name]["depends_on"] == {"valkey": {"condition": "service_healthy"}}


def test_a_worker_is_given_longer_to_stop_than_it_drains() -> None:
    for name in WORKERS:
        grace_s = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > WorkerSettings().drain_grace_s


def test_valkey_and_the_gateway_are_reached_from_this_machine_alone() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"valkey": ["127.0.0.1:6379:6379"], "gateway": ["127.0.0.1:8080:8080"]}


def test_every_named_volume_is_declared_and_used() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service["volumes"]]
    sources = {mount.split(":")[0] for mount in mounts if not mount.startswith((".", "$"))}
    assert sources == set(COMPOSE["volumes"])


def test_images_are_built_from_the_repositorys_root_out_of_files_that_exist() -> None:
    for name in (*WORKERS, "client"):
        build = SERVICES[name]["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        dockerfile = ROOT / build["dockerfile"]
        text = dockerfile.read_text()
        kept = dockerfile.with_name(dockerfile.name + ".dockerignore").read_text().splitlines()
        for source in re.findall(r"^COPY (\S+)", text, re.MULTILINE):
            assert (ROOT / source).exists()
            assert f"!{source}" in kept
        for argument in build.get("args", {}):
            assert f"ARG {argument}=" in text
        assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["videoqa"]
        assert 'ENTRYPOINT ["videoqa"]' in text


def test_what_workers_mount_is_theirs_in_the_image() -> None:
    text = (DEPLOY / "Dockerfile.worker").read_text()
    for mount in SERVICES["worker"]["volumes"]:
        place = mount.removesuffix(":ro").rpartition(":")[2]
        assert re.search(rf"mkdir -p .*{place}\b", text)
        if not mount.endswith(":ro"):
            assert re.search(rf"chown videoqa .*{place}\b", text)


# -- variables


@pytest.mark.parametrize(
    "name", ["compose.yaml", "env.example", "Dockerfile.worker", "Dockerfile.client", "README.md"]
)
def test_every_variable_named_here_is_a_setting(name: str) -> None:
    named = set(re.findall(r"VIDEOQA_[A-Z0-9_]+", (DEPLOY / name).read_text()))
    assert named <= OWN | COMPOSE_ONLY


def test_what_compose_asks_for_stands_in_the_example() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    assert asked - COMPOSE_ONLY <= set(example())


def test_the_client_looks_where_workers_do() -> None:
    assert SERVICES["client"]["env_file"] == SERVICES["worker"]["env_file"] == [".env"]


def test_a_worker_in_the_image_can_talk_to_a_models_server() -> None:
    assert "'./worker[server]'" in (DEPLOY / "Dockerfile.worker").read_text()


def test_a_worker_takes_the_examples_settings_with_those_of_compose() -> None:
    for name in WORKERS:
        found = WorkerSettings.from_environment(example() | _fill(SERVICES[name]["environment"]))
        assert found.redis_url == f"redis://:{PASSWORD}@valkey:6379/0"
        assert found.sources.file_roots == (Path("/media"), Path("/files"))
        assert found.output == "file:///results/{date}/{job_id}.json"
    assert (
        WorkerSettings.from_environment(_fill(SERVICES["worker-cpu"]["environment"])).model
        == "demo"
    )


def _fill(environment: dict[str, str], password: str = PASSWORD) -> dict[str, str]:
    """A service's environment as Compose fills it from the example and a password."""
    variables = example() | {"VALKEY_PASSWORD": password}

    def fill(match: re.Match[str]) -> str:
        name, default = match[1], match[3] if match[2] == "-" else ""
        return variables.get(name) or default or ""

    pattern = r"\$\{([A-Z_]+)(?::([-?])([^}]*))?\}"
    return {name: re.sub(pattern, fill, text) for name, text in environment.items()}


def test_a_gateway_takes_the_settings_and_workers_read_its_uploads(tmp_path: Path) -> None:
    environ = example() | _fill(SERVICES["gateway"]["environment"])
    found = GatewaySettings.from_environment(environ)
    assert (found.gateway_host, found.gateway_port, found.gateway_open) == ("0.0.0.0", 8080, False)
    assert found.gateway_files == "/files"
    assert "files:/files" in SERVICES["gateway"]["volumes"]
    for name in WORKERS:
        assert "files:/files" in SERVICES[name]["volumes"]
    grace_s = float(SERVICES["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > found.gateway_drain_s
    client = (DEPLOY / "Dockerfile.client").read_text()
    assert "'./producer[gateway]'" in client
    assert re.search(r"chown videoqa .*/files", client)


def test_a_gateway_is_healthy_while_redis_answers(valkey: Settings) -> None:
    how, python, option, code = SERVICES["gateway"]["healthcheck"]["test"]
    assert (how, python, option) == ("CMD", "python", "-c")
    assert "http://127.0.0.1:8080/readyz" in code
    away = valkey.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    for settings, status in ((valkey, 0), (away, 1)):
        with serve_gateway(settings) as gateway:
            here = code.replace("http://127.0.0.1:8080", gateway.url)
            done = subprocess.run(
                [sys.executable, "-c", here], timeout=30, check=False, capture_output=True
            )
            assert done.returncode == status


def test_nothing_starts_with_the_examples_password() -> None:
    assert example()["VALKEY_PASSWORD"] == ""
    for asked in re.findall(r"\$\{VALKEY_PASSWORD[^}]*\}", (DEPLOY / "compose.yaml").read_text())[
        :2
    ]:
        assert asked.startswith("${VALKEY_PASSWORD:?"), "Compose refuses to start without one"
    assert "change-me" not in (DEPLOY / "env.example").read_text()


# -- valkey.conf and the health check, for real


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A real server with deploy/valkey.conf; only its address differs."""
    folder = tmp_path_factory.mktemp("valkey")
    port = free_port()
    settings = Settings(redis_url=f"redis://:{PASSWORD}@127.0.0.1:{port}/0")
    with _start_valkey(folder, PASSWORD, port) as server:
        server.wait_until(lambda: _answers(settings), timeout_s=15)
        yield settings


def _start_valkey(folder: Path, password: str, port: int = 0) -> ServerProcess:
    """Starts compose.yaml's own command; in the image's place stands its entry point, and notes its arguments."""
    entry = folder / "docker-entrypoint.sh"
    entry.write_text(
        f"""#!/bin/sh
echo "$@" > {folder}/arguments
exec {find_server(os.environ)} {DEPLOY}/valkey.conf --port {port} --bind 127.0.0.1 "$3"
"""
    )
    entry.chmod(0o755)
    command = [part.replace("$$", "$") for part in SERVICES["valkey"]["command"]]
    return ServerProcess(
        "valkey",
        command,
        log_path=folder / "log",
        cwd=folder,
        env=_fill(SERVICES["valkey"]["environment"], password)
        | {"PATH": f"{folder}:{os.environ['PATH']}"},
    )


def test_no_command_line_has_the_password(
    valkey: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    noted = tmp_path_factory.getbasetemp() / "valkey0" / "arguments"
    assert noted.read_text() == "valkey-server /etc/valkey/valkey.conf -\n"
    with connect(valkey) as client:
        assert client.config_get("requirepass") == {"requirepass": PASSWORD}
    for service in SERVICES.values():
        words = [*service.get("command", ()), *service.get("healthcheck", {}).get("test", ())]
        assert not any("${VALKEY_PASSWORD" in word for word in words)
    for name in ("README.md", "compose.yaml"):
        assert not re.search(r"-e \S*PASSWORD|--requirepass|--pass\b", (DEPLOY / name).read_text())


@pytest.mark.parametrize("password", ["change-me", "changeme", "two words", 'a"b'])
def test_valkey_refuses_the_examples_password_and_what_a_url_would_break(
    tmp_path: Path, password: str
) -> None:
    with _start_valkey(tmp_path, password) as server:
        assert server.process.wait(10) == 1
        assert "VALKEY_PASSWORD: expected letters and digits" in server.log_tail()
        assert password not in server.log_tail()


def _answers(settings: Settings) -> bool:
    import redis

    with connect(settings) as client:
        try:
            return bool(client.ping())
        except redis.exceptions.ConnectionError:
            return False


def test_a_real_server_takes_valkey_conf_and_the_doctor_is_content(valkey: Settings) -> None:
    with connect(valkey) as client:
        found = list(doctor._check_redis(valkey, client))
        assert [check for check in found if not check.ok] == []
        assert len(found) > 4
        shown = client.config_get("*")  # each line of the file arrived
        assert isinstance(shown, dict)
        assert {
            name: shown[name]
            for name in (
                "appendonly",
                "appendfsync",
                "save",
                "maxmemory",
                "stream-node-max-bytes",
                "hash-max-listpack-value",
                "list-compress-depth",
            )
        } == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory": str(1 << 30),
            "stream-node-max-bytes": "256",
            "hash-max-listpack-value": "1024",
            "list-compress-depth": "1",
        }


def test_a_worker_is_healthy_once_it_is_ready(valkey: Settings) -> None:
    assert SERVICES["worker"]["healthcheck"] == SERVICES["worker-cpu"]["healthcheck"]
    how, python, option, code = SERVICES["worker"]["healthcheck"]["test"]
    assert (how, python, option) == ("CMD", "python", "-c")
    environ = os.environ | {"VIDEOQA_REDIS_URL": valkey.redis_url, "VIDEOQA_PREFIX": "videoqa"}

    def healthy() -> bool:
        done = subprocess.run([sys.executable, "-c", code], env=environ, timeout=30, check=False)
        return done.returncode == 0

    now = datetime.now(UTC)
    info = WorkerInfo(
        id=f"{os.uname().nodename}:1", model="demo", queues=(), slots=1, running=0, ready=False,
        started_at=now, seen_at=now,
    )  # fmt: skip
    with connect(valkey) as client:
        ledger = Ledger(client, url=valkey.redis_url)
        ledger.announce(info)
        assert not healthy()
        ledger.announce(info.model_copy(update={"ready": True}))
        assert healthy()
