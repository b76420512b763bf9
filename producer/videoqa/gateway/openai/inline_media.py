"""InlineMedia: videos and images that stand in a chat itself, as files with a short time to live.

The bytes of a `data:` URL are stored like an upload, so that workers read them as any input. Equal bytes are one file
for as long as it lives: a repeated call has the same request, and answers come from the cache.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator
from typing import cast

import redis

from videoqa.contract import guess_kind
from videoqa.errors import InvalidRequest
from videoqa.gateway.files.files import Files
from videoqa.gateway.http.problems import HttpError
from videoqa.gateway.openai.chat_request import ChatRequest
from videoqa.jobs import translate_redis_errors

__all__ = ["InlineMedia"]

CHAT_TTL_S = 3600
"""Lifetime of the files of a chat; a job that uses one keeps its bytes until it ends."""
_MARGIN_S = 300
"""Time before its end in which a file is not used again."""


class InlineMedia:
    """The media in the chats of one prefix."""

    def __init__(self, files: Files, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._files = files
        self._redis = client
        self._url = url
        self._prefix = f"{prefix}:chat:data"

    async def settle(
        self, asked: ChatRequest, tenant: str | None, *, of: str = "", ttl_s: int = CHAT_TTL_S
    ) -> None:
        """Stores the media of a chat, and finds out which of its files are images.

        Arguments:
            of: whatever the files belong to, if they are not to be used elsewhere.

        Raises:
            InvalidRequest: a `data:` URL is none.
            HttpError: a file is not there, or none can be stored.
        """
        for index, url in asked.data.items():
            try:
                asked.set_url(index, await self._store(url, tenant, of, ttl_s))
            except (HttpError, InvalidRequest) as error:
                error.param = f"inputs.{index}.url"
                raise asked.translate(error) from None
        for index in asked.files:
            try:
                record = await self._files.get(asked.get_url(index), tenant)
            except HttpError as error:
                refusal = HttpError(
                    400, error.http_code, error.message, param=f"inputs.{index}.url"
                )
                raise asked.translate(refusal) from None
            if guess_kind(f"https://x/{record.name}") == "image":
                asked.set_image(index)

    async def _store(self, url: str, tenant: str | None, of: str, ttl_s: int) -> str:
        data, suffix, digest = await self._files.run(_decode, url)
        key = f"{self._prefix}:{hashlib.sha256(f'{of}/{tenant}/{digest}'.encode()).hexdigest()}"
        known = await self._files.run(self._get, key)
        if known is not None:
            try:
                return (await self._files.get(known, tenant)).id
            except HttpError:
                pass  # it was deleted
        record = await self._files.create(
            f"inline{suffix}", _yield_pieces(data), tenant=tenant, purpose="user_data", ttl_s=ttl_s
        )
        await self._files.run(self._set, key, record.id, ttl_s - _MARGIN_S)
        return record.id

    def _get(self, key: str) -> str | None:
        with translate_redis_errors(self._url):
            return cast("str | None", self._redis.get(key))

    def _set(self, key: str, file_id: str, ttl_s: int) -> None:
        with translate_redis_errors(self._url):
            self._redis.set(key, file_id, ex=ttl_s)


def _decode(url: str) -> tuple[bytes, str, str]:
    """Returns the bytes of a `data:` URL, a suffix for their file's name, and their digest; raises InvalidRequest."""
    head, comma, text = url.partition(",")
    kind, *parameters = head.removeprefix("data:").split(";")
    if not comma or "base64" not in parameters:
        raise InvalidRequest("got a data: URL without base64, expected data:video/mp4;base64,...")
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidRequest(f"got a data: URL that is no base64: {error}") from error
    if not data:
        raise InvalidRequest("got a data: URL without bytes")
    subtype = kind.partition("/")[2]
    suffix = f".{subtype}" if subtype.isascii() and subtype.isalnum() and len(subtype) <= 8 else ""
    return data, suffix, hashlib.sha256(data).hexdigest()


async def _yield_pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]
