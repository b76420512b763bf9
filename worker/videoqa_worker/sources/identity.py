"""Identity of a source's bytes: the name and version under which answers about them are kept.

An ETag belongs to a URL, so the URL is part of the name; but stores sign a part of its query anew
for each user, and the signature says nothing about the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from videoqa.contract import is_s3_url, split_url
from videoqa_worker.sources.local_copy import LocalCopy

__all__ = ["SourceVersion", "identify_source", "remove_signature"]

_SIGNATURE = frozenset(
    ("awsaccesskeyid", "googleaccessid", "key-pair-id", "policy", "signature", "expires")
)
_ALIBABA = frozenset(
    ("ossaccesskeyid", "security-token", "x-oss-security-token", "x-oss-signature", "x-oss-date",
     "x-oss-signature-version", "x-oss-credential", "x-oss-expires", "x-oss-additional-headers")
)  # fmt: skip
"""Listed one by one: `x-oss-process` begins alike, and says which picture or part of the object is sent."""
_TENCENT = frozenset(
    ("q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list",
     "q-signature", "x-cos-security-token")
)  # fmt: skip
_AZURE = frozenset(
    ("sv", "ss", "srt", "st", "se", "sr", "sp", "spr", "sip", "si", "sig", "sdd",
     "saoid", "suoid", "scid", "skoid", "sktid", "skt", "ske", "sks", "skv")
)  # fmt: skip
"""Parameters of a shared access signature, which always has `sv` and `sig`; without these two the names are
too short to tell."""


@dataclass(frozen=True)
class SourceVersion:
    """Version of an input's bytes, known before any of them is decoded."""

    url: str
    """Without credentials; see `remove_signature`."""
    etag: str | None
    version_id: str | None
    size_bytes: int
    state: str | None = None
    """See `LocalCopy.state`."""

    @property
    def is_exact(self) -> bool:
        """Other bytes would have another ETag. A weak ETag does not promise that."""
        return self.etag is not None and not self.etag.startswith("W/")

    @property
    def names_bytes(self) -> bool:
        """The version stands for certain bytes, by its ETag or by their own digest."""
        is_digest = self.etag is None and self.state is not None
        return self.is_exact or (is_digest and str(self.state).startswith("sha256:"))


def identify_source(url: str, copy: LocalCopy) -> SourceVersion:
    return SourceVersion(
        remove_signature(url), copy.etag, copy.version_id, copy.size_bytes, copy.state
    )


def remove_signature(url: str) -> str:
    """Returns the URL and its query without credentials and signature.

    Knows the signatures of S3, Google, CloudFront, Azure, Alibaba and Tencent. An S3 URL has no
    query: all after the bucket is the key, but a version, which the store tells as well.
    """
    if is_s3_url(url):
        return "s3://" + url[len("s3://") :].partition("?versionId=")[0]
    parts = split_url(url)
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in ("http", "https"):
        return bare
    query = parse_qsl(parts.query, keep_blank_values=True)
    signed = _SIGNATURE | _ALIBABA | _TENCENT
    if {"sv", "sig"} <= {name for name, _ in query}:
        signed |= _AZURE
    kept = [
        (name, value)
        for name, value in query
        if not name.lower().startswith(("x-amz-", "x-goog-")) and name.lower() not in signed
    ]
    return f"{bare}?{urlencode(kept)}" if kept else bare
