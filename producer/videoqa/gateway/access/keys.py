"""API keys: their text, and the records of them in Redis, which have a hash of the secret only.

A key is `vqa_ID_SECRETcrc`: the id names the record, the secret has 256 random bits, and the six digits behind it are
its CRC-32, so that a key that was cut off is told from a wrong one, and scanners for secrets find real keys only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self, cast
from zlib import crc32

import redis
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from videoqa.contract import Webhook, check_output, refuse_mistake
from videoqa.errors import ConfigurationError, InvalidRequest, VideoQAError, WrongKey
from videoqa.gateway.access.audit import AuditLog, make_fields
from videoqa.gateway.access.input_scope import ANY_HTTP, check_prefixes
from videoqa.gateway.base62 import ALPHABET, draw
from videoqa.jobs import execute_each, translate_redis_errors
from videoqa.login import name_shell_user

__all__ = [
    "ROLES",
    "ApiKey",
    "KeyChanged",
    "KeyFields",
    "KeyNotFound",
    "KeyStore",
    "NewKey",
    "Role",
    "WrongKey",
    "draw_id",
    "parse_fields",
    "parse_key",
]

Role = Literal["submit", "read", "operate", "admin"]
ROLES: tuple[Role, ...] = ("submit", "read", "operate", "admin")

MOST_OVERLAP_S = 30 * 86_400
"""Longest time for which a secret is valid after its rotation."""
_KEY = re.compile(r"vqa_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
_RATE = re.compile(r"[1-9][0-9]{0,8}/[smhd]")
_ID = re.compile(r"[0-9A-Za-z]{12}")
_ID_DIGITS, _SECRET_DIGITS = 12, 43  # 62 ** 43 > 2 ** 256
_FIELDS = ("hash", "info", "used_at", "old_hash", "old_until", "rotated_at")
_CHANGE = """\
-- KEYS: key. ARGV: hash before, hash, old hash, end of the overlap, time -> 1, or 0: it has another secret
if redis.call('HGET', KEYS[1], 'hash') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'hash', ARGV[2], 'old_hash', ARGV[3], 'old_until', ARGV[4], 'rotated_at', ARGV[5])
return 1
"""
_USED_EVERY_S = 60.0
"""Time for which a key's last use is not noted again."""


class KeyChanged(VideoQAError):
    """The API key was made or changed meanwhile, as by the same form before."""

    code = "key_changed"


class KeyNotFound(VideoQAError):
    """No API key has this id."""

    code = "key_not_found"


def _check_rate(rate: str) -> str:
    if not _RATE.fullmatch(rate):
        raise InvalidRequest(
            f"got rate={rate!r:.50}, expected requests in a second, minute, hour or day: 10/s, 600/m, 9000/h, "
            "100000/d",
            param="rate",
        )
    return rate


def _make_template(output: str) -> str:
    template = f"{output}{{job_id}}.json" if output.endswith("/") else output
    try:
        fields = check_output(template)
    except ValueError as error:
        raise InvalidRequest(f"got the output {output!r:.200}: {error}", param="output") from error
    if "job_id" not in fields or "custom_id" in fields:
        # A custom_id is the caller's: it would choose the object that is written.
        raise InvalidRequest(
            f"got the output {output!r:.200}, expected {{job_id}} in it, and no {{custom_id}}",
            param="output",
        )
    return template


def _sort_roles(roles: tuple[Role, ...]) -> tuple[Role, ...]:
    return tuple(role for role in ROLES if role in roles)


_Count = Annotated[int, Field(strict=True, ge=1, le=10**15)]


class KeyFields(BaseModel):
    """Fields of a key that its maker chooses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=200)
    """The owner's word for it."""
    roles: Annotated[tuple[Role, ...], AfterValidator(_sort_roles)] = Field(min_length=1)
    tenant: str | None = Field(default=None, min_length=1, max_length=128)
    """The only tenant whose jobs it reaches; None: all, for operators."""
    inputs: Annotated[tuple[str, ...], AfterValidator(check_prefixes)] = Field(
        default=ANY_HTTP, min_length=1, max_length=100
    )
    """Prefixes of the URLs that its jobs may read: hosts, buckets and folders."""
    output: Annotated[str, AfterValidator(_make_template)] | None = Field(
        default=None, max_length=2048
    )
    """Template of the result objects of its jobs, or a prefix that ends with a slash; None: the worker's own."""
    rate: Annotated[str, AfterValidator(_check_rate)] | None = None
    """Most requests in a second, minute, hour or day, as `10/s`; None: no limit, as in each of the following."""
    jobs_per_day: _Count | None = None
    """Most jobs that it submits on a UTC day."""
    open_jobs: _Count | None = None
    """Most jobs of its tenant that are queued or running when it submits one."""
    frames_per_day: _Count | None = None
    """Frames of its jobs that ended on this UTC day, after which it submits no more."""
    tokens_per_day: _Count | None = None
    """Input and output tokens of these jobs, after which it submits no more."""
    max_file_bytes: _Count | None = None
    """Largest file that it may upload."""
    webhook: Webhook | None = None
    """The URL that is called when one of its jobs ends, unless that names its own."""
    expires_at: AwareDatetime | None = None
    """End of its life; None: none."""

    @field_validator("expires_at", mode="before")
    @classmethod
    def _refuse_number(cls, expires_at: Any) -> Any:
        """Refuses a number, which pydantic takes for a UNIX time."""
        if isinstance(expires_at, int | float):
            raise ValueError("expected a time such as 2026-11-30T09:30:00Z")
        return expires_at

    @model_validator(mode="after")
    def _check_open_jobs(self) -> Self:
        if self.open_jobs is not None and self.tenant is None:
            raise InvalidRequest(
                "got open_jobs for a key of all tenants, expected a tenant: the jobs of one are counted",
                param="open_jobs",
            )
        return self


class ApiKey(KeyFields):
    """The rights of a key; it does not hold the secret."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    created_at: AwareDatetime
    used_at: AwareDatetime | None = None
    """Its last use, to the minute; None: never."""
    rotated_at: AwareDatetime | None = None
    """Its last change of secret; None: there was none."""
    overlap_until: AwareDatetime | None = None
    """Time until which the secret before the last rotation is valid as well."""

    def may(self, role: Role) -> bool:
        """Tells if the key has the role; an administrator has all."""
        return role in self.roles or "admin" in self.roles

    def is_over(self, now: datetime) -> bool:
        """Tells if its life has ended."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True)
class NewKey:
    """A key that was just made, with its text, which is shown once."""

    key: ApiKey
    text: str


@dataclass(frozen=True)
class _Record:
    """A key's hash in Redis, as far as it is there."""

    digest: str
    info: str | None
    used_at: str | None
    old_digest: str
    old_until: str | None
    rotated_at: str | None

    def parse(self) -> ApiKey | None:
        """Returns the key; None if there is none, or another program's."""
        if self.info is None:
            return None
        try:
            found = {
                "used_at": self.used_at,
                "overlap_until": self.old_until,
                "rotated_at": self.rotated_at,
            }
            key = ApiKey.model_validate_json(self.info)
            return ApiKey.model_validate(key.model_dump() | found)
        except (ValidationError, InvalidRequest):
            return None


def _check_digits(text: str) -> str:
    value, digits = crc32(text.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits += ALPHABET[digit]
    return digits


def _hash(secret: str) -> str:
    # The secret is random, so that a slow hash would slow down requests and no attacker.
    return hashlib.sha256(secret.encode()).hexdigest()


_NO_SECRET = _hash("")
"""Hash that a record without one is compared with; no secret is empty."""


def draw_id() -> str:
    """Returns the id of a key that is to be made."""
    return draw(_ID_DIGITS)


def parse_key(text: str) -> tuple[str, str]:
    """Returns a key's id and secret; raises WrongKey for text that is none."""
    match = _KEY.fullmatch(text) if len(text) < 200 else None
    if match is None or not hmac.compare_digest(_check_digits(match[1] + match[2]), match[3]):
        raise WrongKey("got what is no API key, or a part of one; expected vqa_ID_SECRET")
    return match[1], match[2]


def parse_fields(fields: Mapping[str, Any]) -> KeyFields:
    """Returns the fields of a new key; raises InvalidRequest."""
    try:
        return KeyFields.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise refuse_mistake(first, first["loc"][:2]) from error


class KeyStore:
    """The records of all keys of one prefix in Redis. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._redis = client
        self._url = url
        self._index = f"{prefix}:keys"
        self._prefix = f"{prefix}:key:"
        self._audit = AuditLog(client, url=url, prefix=prefix)
        self._change_secret = client.register_script(_CHANGE)

    def create(self, name: str, roles: Any, *, who: str | None = None, **fields: Any) -> NewKey:
        """Makes a key; its text is returned here, and never again.

        Arguments:
            who: id of the key that makes it; None: the user of the command line.
            fields: those of `KeyFields`.
        """
        return self.add(parse_fields({"name": name, "roles": roles, **fields}), who=who)

    def add(
        self, chosen: KeyFields, *, who: str | None = None, key_id: str | None = None
    ) -> NewKey:
        """Makes a key of checked fields; see `create`.

        Arguments:
            key_id: an id of `draw_id`, which makes one key only, however often the call is repeated; None: a new one.

        Raises:
            KeyChanged: there is a key with this id.
        """
        key = ApiKey(**chosen.model_dump(), id=key_id or draw_id(), created_at=datetime.now(UTC))
        secret = draw(_SECRET_DIGITS)
        with translate_redis_errors(self._url):
            if not _ID.fullmatch(key.id) or not self._redis.hsetnx(
                self._prefix + key.id, "info", _dump(key)
            ):
                raise KeyChanged(
                    f"the key {key.id!r:.100} is made already, and its text was shown then; rotate it if that is lost"
                )
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(self._prefix + key.id, "hash", _hash(secret))
            pipe.zadd(self._index, {key.id: key.created_at.timestamp()})
            self._note(pipe, "create", key, who)
            pipe.execute()
        return NewKey(key, _write(key.id, secret))

    def _note(self, pipe: Any, change: str, key: ApiKey, who: str | None) -> None:
        detail = f"{key.name}: {','.join(key.roles)} of {key.tenant or 'all tenants'}"
        fields = make_fields(who or name_shell_user(), f"keys {change}", on=key.id, detail=detail)
        self._audit.write(fields, pipe=pipe)

    def rotate(
        self,
        key_id: str,
        *,
        overlap_s: float = 0.0,
        who: str | None = None,
        if_rotated_at: str | None = None,
    ) -> NewKey:
        """Gives a key a new secret.

        Arguments:
            overlap_s: time for which the old one is valid as well; that before it is refused from now on.
            if_rotated_at: only if this is the time of its last change of secret, empty if there was none, so that a
                repeated call changes nothing.

        Raises:
            KeyNotFound: there is none.
            KeyChanged: its secret was changed meanwhile.
        """
        if not 0 <= overlap_s <= MOST_OVERLAP_S:
            raise InvalidRequest(
                f"got an overlap of {overlap_s:g} s, expected 0 to 30 days", param="overlap_s"
            )
        record = self._read(key_id)
        key = record.parse()
        if key is None:
            raise _refuse_id(key_id)
        last = key.rotated_at.isoformat() if key.rotated_at else ""
        if if_rotated_at not in (None, last):
            raise _refuse_change(key)
        secret, now = draw(_SECRET_DIGITS), datetime.now(UTC)
        until = now + timedelta(seconds=overlap_s) if overlap_s else None
        written = (
            _hash(secret),
            record.digest if until else "",
            until.isoformat(timespec="seconds") if until else "",
            now.isoformat(),
        )
        with translate_redis_errors(self._url):
            self._note(self._redis, "rotate", key, who)
            if not self._change_secret(
                keys=[self._prefix + key.id], args=[record.digest, *written]
            ):
                raise _refuse_change(key)
        changed = {"overlap_until": until, "rotated_at": now}
        return NewKey(key.model_copy(update=changed), _write(key.id, secret))

    def revoke(self, key_id: str, *, who: str | None = None) -> None:
        """Deletes a key, and the record of one that no longer is one."""
        record = self._read(key_id)
        if record.info is None:
            raise _refuse_id(key_id)
        key = record.parse()
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=True)
            pipe.delete(self._prefix + key_id)
            pipe.zrem(self._index, key_id)
            if key is not None:
                self._note(pipe, "revoke", key, who)
            pipe.execute()

    def find(self, key_id: str) -> ApiKey | None:
        """Returns a key, or None."""
        return self._read(key_id).parse()

    def get(self, key_id: str) -> ApiKey:
        """Returns a key; raises KeyNotFound if there is none."""
        found = self.find(key_id)
        if found is None:
            raise _refuse_id(key_id)
        return found

    def list(self) -> list[ApiKey]:
        """Returns all keys, oldest first."""
        with translate_redis_errors(self._url):
            ids = cast("list[str]", self._redis.zrange(self._index, 0, -1))
            pipe = self._redis.pipeline(transaction=False)
            for key_id in ids:
                pipe.hmget(self._prefix + key_id, *_FIELDS)
            replies = execute_each(pipe)
        # One of another type costs this key alone.
        records = [_make_record(one) for one in replies if not isinstance(one, Exception)]
        return [key for key in (record.parse() for record in records) if key is not None]

    def check(self, text: str) -> ApiKey:
        """Returns the key with this text, and notes its use.

        Raises:
            WrongKey: it is malformed, unknown, revoked, or over; the message is the same for all but a malformed one.
        """
        key_id, secret = parse_key(text)
        record = self._read(key_id)
        now = datetime.now(UTC)
        # Compared for an unknown id as well, so that the time does not tell which ids there are.
        digest = _hash(secret).encode()
        is_current = hmac.compare_digest(digest, record.digest.encode())
        is_old = hmac.compare_digest(digest, record.old_digest.encode())
        if not is_current and not is_old:
            raise _refuse_text()
        key = record.parse()
        if key is None or key.is_over(now):
            raise _refuse_text()
        if not is_current and (key.overlap_until is None or key.overlap_until <= now):
            raise _refuse_text()
        if key.used_at is None or (now - key.used_at).total_seconds() > _USED_EVERY_S:
            with translate_redis_errors(self._url):
                self._redis.hset(
                    self._prefix + key_id, "used_at", now.isoformat(timespec="seconds")
                )
        return key

    def _read(self, key_id: str) -> _Record:
        try:
            with translate_redis_errors(self._url):
                found = self._redis.hmget(self._prefix + key_id, *_FIELDS)
        except ConfigurationError:  # another type of value: it costs this key alone
            found = [None] * len(_FIELDS)
        return _make_record(cast("list[str | None]", found))


def _make_record(found: Sequence[str | None]) -> _Record:
    digest, info, used_at, old_digest, old_until, rotated_at = (one or None for one in found)
    return _Record(
        digest or _NO_SECRET, info, used_at, old_digest or _NO_SECRET, old_until, rotated_at
    )


def _dump(key: ApiKey) -> str:
    return key.model_dump_json(exclude={"used_at", "overlap_until", "rotated_at"})


def _write(key_id: str, secret: str) -> str:
    """Returns the text of a key."""
    return f"vqa_{key_id}_{secret}{_check_digits(key_id + secret)}"


def _refuse_text() -> WrongKey:
    return WrongKey(
        "this API key is unknown, revoked or over; make another one with `videoqa keys create`"
    )


def _refuse_change(key: ApiKey) -> KeyChanged:
    return KeyChanged(
        f"the secret of the key {key.name!r:.100} was changed meanwhile; open the list of keys again before the next "
        "change"
    )


def _refuse_id(key_id: str) -> KeyNotFound:
    return KeyNotFound(f"there is no key {key_id!r:.100}; `videoqa keys list` shows all")
