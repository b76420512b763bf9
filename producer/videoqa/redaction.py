"""Redaction: URLs as messages, results and logs may show them, without what opens a door.

A user, a password, a query (signatures, tokens) and a fragment are taken out; the key of an `s3://` URL may have
`?` and `#` in it. Where a password that is
not quoted makes it unclear which part is which, nothing but the scheme is left. Log lines lose keys and credentials
that stand outside of URLs as well.
"""

from __future__ import annotations

import re

__all__ = ["redact_secrets", "redact_text", "redact_url"]

_HIDDEN = "***"
_END = re.compile(r"[?#]")
_S3 = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]{0,254}/", re.IGNORECASE)
_SIGNATURE = re.compile(
    r"[?&](?:x-(?:amz|goog)-[a-z-]{1,40}|awsaccesskeyid|googleaccessid|signature|sig|[a-z-]{0,20}token)=",
    re.IGNORECASE,
)
"""A query that opens a door, pasted behind a key; others are a part of the key."""
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::(.*))?", re.DOTALL)
_NEXT_BROKER = re.compile(r";(?=[\w+.-]{1,32}://)")
_WORD = re.compile(r"[^\s'\"<>]+")
_VALUE = r"""["']?\s{0,3}[=:]\s{0,3}["']?"""
_NAMED = re.compile(
    r"((?:secret_?access_?key|secret_?key|session_?token|security-?token|client_?secret|signing_?secret"
    r"|password|passwd|api[_-]?key|access_?token|refresh_?token|signature|(?:set-)?cookie)"
    rf"{_VALUE})([^\s\"',}}&]{{3,}})",
    re.IGNORECASE,
)
"""Secrets that stand behind their name: `aws_secret_access_key=...`, `"password": "..."`, `Cookie: ...`."""
_AUTHORIZATION = re.compile(
    rf"((?:proxy-)?authorization{_VALUE})((?:[a-z0-9-]{{1,20}} )?[^\s\"',}}]+)", re.IGNORECASE
)
_BEARER = re.compile(
    r"\b(bearer|basic)(?:\s|\\t){1,3}(?=[\w.~+/=-]{0,400}[0-9A-Z_=])[\w.~+/=-]{8,}", re.IGNORECASE
)
_TOKEN = re.compile(
    rf"((?:token|secret){_VALUE})(?=[^\s\"',}}&]{{0,400}}\d)([^\s\"',}}&]{{8,}})", re.IGNORECASE
)
"""A token or secret behind a name that ends so, if it looks like one: models have words that are called tokens too."""
_QUOTED_USER = re.compile(r"(%3A%2F%2F)[^\s\"'&/]{1,400}(%40)", re.IGNORECASE)
"""User and password of a URL that is the value of another one's query."""
_KEYS = re.compile(
    r"\bvqa_[0-9A-Za-z]+_[0-9A-Za-z]*"  # our API keys
    r"|\bwhsec_[\w+/=-]+"  # signing secrets of webhooks
    r"|\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{12,}\b"  # AWS access key ids
    r"|\b(?:sk|hf|ghp|gho|glpat|xox[abp])[-_][\w-]{16,}"  # model servers, the hub, forges
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON web tokens
)
"""Secrets that are known by their own form."""
_SUSPECT = re.compile(
    r"[:@=?]|%3a|bearer|basic|vqa_|whsec_|A[KSBC][IC]A|sk[-_]|hf[-_]|gh[po]_|glpat|xox|eyJ",
    re.IGNORECASE,
)
"""Something that each of these secrets has; a text without it is as it was, and most are."""


def redact_url(url: str) -> str:
    """Returns the URL without user, password, query and fragment; any text may be given for one."""
    return ";".join(_redact_one(one) for one in _NEXT_BROKER.split(url))


def _redact_one(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark:
        return _redact_nameless(url)
    if _S3.match(url) and not _SIGNATURE.search(rest):
        return f"{scheme.lower()}://{rest}"  # it is not quoted, and has neither query nor fragment
    shown = _END.split(rest, maxsplit=1)[0]
    authority, slash, path = shown.partition("/")
    host = authority.rpartition("@")[2]
    # `redis://:pa/ss@host` and `redis://:pa?ss@host` have the beginning of a password for a port.
    hosts = host.split(",") if scheme.lower().endswith("+sentinel") else [host]
    is_clear = all(_has_clear_port(one) for one in hosts)
    if ":" in host and "@" not in authority and "@" in rest:
        is_clear = is_clear and bool(slash) and scheme.lower() in ("http", "https")
    return (
        f"{scheme.lower()}://{host}{slash}{path}" if is_clear else f"{scheme.lower()}://{_HIDDEN}"
    )


def _has_clear_port(host: str) -> bool:
    port = _HOST.fullmatch(host)
    return port is not None and (not port[1] or port[1].isdigit())


def _redact_nameless(text: str) -> str:
    """Redacts what may be a URL without its scheme: `me:secret@host/path?token`."""
    before, _, after = text.rpartition("@")
    return _HIDDEN if _END.search(before) else _END.split(after, maxsplit=1)[0]


def redact_text(text: str) -> str:
    """Redacts the URLs in a text, such as a library's error message."""

    def redact(found: re.Match[str]) -> str:
        word = found[0]
        is_url = "://" in word or "@" in word.strip("@") or "=" in word.partition("?")[2]
        return redact_url(word) if is_url else word

    return _WORD.sub(redact, text)


def redact_secrets(text: str) -> str:
    """Redacts URLs, API keys, credentials and signing secrets in a text, for log lines."""
    if not _SUSPECT.search(text):
        return text
    text = redact_text(text)
    text = _AUTHORIZATION.sub(rf"\1{_HIDDEN}", text)
    text = _BEARER.sub(rf"\1 {_HIDDEN}", text)
    text = _KEYS.sub(_HIDDEN, text)
    text = _QUOTED_USER.sub(rf"\1{_HIDDEN}\2", text)
    text = _TOKEN.sub(rf"\1{_HIDDEN}", text)
    return _NAMED.sub(rf"\1{_HIDDEN}", text)
