"""Output: URLs of objects, and the template from which each job's result URL is made.

`parse_object_url` is the only reader of such a URL: a check and the write after it see the same
bucket and key, or the same path. A template is checked by rendering it for two jobs and parsing both.
"""

from __future__ import annotations

import os
import re
import string
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from videoqa.contract.urls import MAX_KEY_BYTES, check_bucket

__all__ = [
    "OUTPUT_FIELDS",
    "ObjectUrl",
    "check_output",
    "fixed_part",
    "parse_object_url",
    "quote_name",
    "render_output",
]

OUTPUT_FIELDS = ("job_id", "custom_id", "date")
"""Fields that an output template may have in braces; `date` is the day of submission, UTC."""

_URL = re.compile(r"(s3|file)://([^/?#]*)(/[^?#]*)?", re.DOTALL)
_HYPHENS = re.compile(r"[/-]{2,}")
_NOT_IN_A_NAME = re.compile(r'[=\\<>:"|?*\x00-\x1f\x7f]')
"""The escape character, and those that some file systems refuse."""
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_KINDS = "s3://bucket/... or file:///folder/..."


@dataclass(frozen=True)
class ObjectUrl:
    """An `s3://` or `file://` URL, taken apart and decoded."""

    bucket: str | None
    """None: a file."""
    name: str
    """The key in the bucket, or the absolute path."""

    @property
    def path(self) -> Path:
        """The path of a file."""
        return Path(self.name)

    def check_name(self) -> None:
        """Raises ValueError if the name could mean another object to another program, or none."""
        names = (
            self.name.removeprefix("/").split("/") if self.bucket is None else self.name.split("/")
        )
        if self.bucket is not None:
            check_bucket(self.bucket)
        if not self.name.strip("/"):
            raise ValueError(f"got no name of an object, expected {_KINDS}")
        if "\0" in self.name:
            raise ValueError("got a name with a NUL character in it, expected one without")
        if {"", ".", ".."} & set(names):
            raise ValueError(
                f"got the name {self.name!r}, expected one without empty segments, '.' and '..'"
            )
        if self.bucket is not None and len(self.name.encode()) > MAX_KEY_BYTES:
            raise ValueError(
                f"got a key of {len(self.name.encode())} bytes, expected {MAX_KEY_BYTES} at most"
            )


def parse_object_url(url: str) -> ObjectUrl:
    """Takes an `s3://` or `file://` URL apart, as every reader and writer of objects uses it.

    Raises:
        ValueError: it is no such URL, or has a query, a fragment, a user or a control character.
    """
    found = _URL.match(url)
    if found is None or (found[1] == "file" and found[2]):
        raise ValueError(f"expected {_KINDS}")
    if "@" in found[2]:
        raise ValueError("got a user or a password in it, expected s3://bucket/key")
    if found.end() < len(url):
        raise ValueError(
            "got '?' or '#' in it, expected a URL without query and fragment; "
            "in a name, write %3F and %23"
        )
    if re.search(r"[\x00-\x1f\x7f]", url):
        raise ValueError("got a control character in it, expected it as %XX")
    _check_escapes(url)
    name = unquote_to_bytes((found[3] or "").encode(errors="surrogatepass"))
    if found[1] == "file":
        return ObjectUrl(None, os.fsdecode(name))
    try:
        return ObjectUrl(found[2], name.decode().removeprefix("/"))
    except UnicodeDecodeError:
        raise ValueError("got a key that is not UTF-8 after its %XX, expected UTF-8") from None


def _check_escapes(text: str) -> None:
    if _BROKEN_ESCAPE.search(text):
        raise ValueError("got a '%' that is not followed by two hex digits, expected %25 for it")


@lru_cache(maxsize=128)
def check_output(template: str) -> frozenset[str]:
    """Checks an output template; returns its fields. Remembers some: the jobs of an application share one.

    Raises:
        ValueError: it cannot be filled, or two jobs would write one object.
    """
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"expected a template: {error}") from error
    fields = frozenset(str(name) for _, name, _, _ in parts)
    unknown = sorted(fields - set(OUTPUT_FIELDS))
    if unknown:
        raise ValueError(f"got the fields {unknown}, expected some of {list(OUTPUT_FIELDS)}")
    if any(spec or conversion for _, _, spec, conversion in parts):
        # `{job_id:>1000000000}` would take a worker's memory.
        raise ValueError("expected bare fields, such as {job_id}")
    for text, _, _, _ in string.Formatter().parse(template):
        _check_escapes(text)  # in `%2{custom_id}` a custom_id would choose the character
    one, other = (
        parse_object_url(template.format(**dict.fromkeys(OUTPUT_FIELDS, x))) for x in "ab"
    )
    one.check_name()
    if one.bucket != other.bucket:
        raise ValueError("got a field in the bucket's name, expected fields in the key")
    if not {"job_id", "custom_id"} & fields:
        raise ValueError("got a template that is the same for every job, expected {job_id} in it")
    return fields


def render_output(
    template: str, *, job_id: str, custom_id: str | None, created_at: datetime
) -> str:
    """Fills the fields of a template; every attempt of a job gets the same URL."""
    return template.format(
        job_id=job_id,
        custom_id=quote_name(custom_id or "none"),
        date=created_at.strftime("%Y-%m-%d"),
    )


def fixed_part(template: str) -> str:
    """Returns the URL up to the segment with the first field: a folder, without a slash at its end."""
    fixed = ""
    for text, field, _, _ in string.Formatter().parse(template):
        fixed += text
        if field is not None:
            break
    return fixed.rpartition("/")[0]


def quote_name(text: str) -> str:
    """Quotes any text so that it is one name in a URL's path: `a/b 1` becomes `a--b%201`, the file `a--b 1`.

    A slash becomes two hyphens; a hyphen beside another one or a slash, and characters that some file
    system refuses, become `=` and two hexadecimal digits. So no two texts have one name. A name of dots
    alone is escaped too: `..` would lead to the folder above.
    """
    name = _HYPHENS.sub(
        lambda found: found[0].replace("-", "=2D"), _NOT_IN_A_NAME.sub(_escape, text)
    )
    name = name.replace("/", "--")
    return quote(name.replace(".", "=2E") if set(name) == {"."} else name, safe="=")


def _escape(found: re.Match[str]) -> str:
    return f"={ord(found[0]):02X}"
