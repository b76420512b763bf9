"""Error codes of object stores, and what each one asks for: S3 and its kin, Google's and Azure's.

A store writes the code into the body of its answer, also where a presigned URL leads to it by plain
HTTP. Only the code and a region are shown: the rest of a body may hold keys and signatures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from videoqa.errors import (
    BucketNotFound,
    SourceDenied,
    SourceError,
    SourceHttpError,
    SourceNotFound,
    SourceUnavailable,
)

__all__ = ["MAX_BODY_BYTES", "StoreError", "explain_store_error", "read_store_error"]

MAX_BODY_BYTES = 16_384
"""Bytes of an error that are read; one of S3 has some 500, and 2,000 with a signature's parts."""
_CODE = re.compile(rb"<Code>\s{0,9}([A-Za-z0-9_.]{1,64})\s{0,9}</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]{1,2000})</Message>")
_DETAILS = re.compile(rb"<(?:Details|AuthenticationErrorDetail)>([^<]{1,2000})</")
_REGION = re.compile(rb"<Region>([a-z0-9-]{1,40})</Region>")
_ENDPOINT = re.compile(rb"<Endpoint>([a-z0-9.-]{1,200})</Endpoint>")
_EXPECTED_REGION = re.compile(rb"expecting '([a-z0-9-]{1,40})'")
_NAME = re.compile(r"[A-Za-z0-9_.]{1,64}")
_REGION_NAME = re.compile(r"[a-z0-9-]{1,40}")
_JSON_REASON = re.compile(rb'"(?:reason|code)"\s{0,9}:\s{0,9}"([A-Za-z0-9_.]{1,64})"')

_RESTORE = (
    "the object is archived; restore it to a class that can be read at once, and submit again"
)
_EXPIRED = "the presigned URL, or the session that signed it, has expired; submit a new one"
_CLOCK = "the clock of the machine that signed the request is wrong; set it by NTP, and try again"
_KEY = "the key by which the object is encrypted may not be used; grant kms:Decrypt, and enable the key"
_PAYER = (
    "the bucket may be one whose requester pays: set VIDEOQA_SOURCE_REQUESTER_PAYS=true on the workers, or sign the "
    "URL with x-amz-request-payer=requester"
)
_BUSY = "the store is unavailable; try again later"
_SIGNATURE = "the signature does not fit; check the secret key, and that a presigned URL came whole and unchanged"
_CUSTOMER_KEY = "the object is encrypted by a key of its owner (SSE-C), which a worker cannot send; store it without"

_KINDS: dict[str, tuple[type[SourceError], str]] = {
    **dict.fromkeys(
        ("InvalidObjectState", "BlobArchived", "BlobBeingRehydrated", "ObjectNotInActiveTierError",
         "OperationNotSupportedOnArchivedBlob"),
        (SourceDenied, _RESTORE),
    ),
    **dict.fromkeys(("ExpiredToken", "TokenRefreshRequired", "RequestExpired"), (SourceDenied, _EXPIRED)),
    **dict.fromkeys(("RequestTimeTooSkewed", "RequestNotYetValid"), (SourceUnavailable, _CLOCK)),
    **dict.fromkeys(
        ("NoSuchKey", "NoSuchVersion", "BlobNotFound", "ResourceNotFound", "NoSuchUpload", "SnapshotNotFound"),
        (SourceNotFound, "check the key, and the version if one is named"),
    ),
    "MethodNotAllowed": (SourceNotFound, "this version is a mark that the object was deleted; name another one"),
    **dict.fromkeys(
        ("NoSuchBucket", "ContainerNotFound", "AccountNotFound"),
        (BucketNotFound, "check the bucket's name, its region and the endpoint"),
    ),
    "InvalidBucketName": (BucketNotFound, "check the bucket's name"),
    "NoSuchAccessPoint": (BucketNotFound, "check the access point's alias"),
    **dict.fromkeys(
        ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout", "InternalError",
         "ServiceUnavailable", "Busy", "ServerBusy", "OperationTimedOut", "KMS.ThrottlingException",
         "RequestThrottled", "TooManyRequests", "OperationAborted"),
        (SourceUnavailable, _BUSY),
    ),
    "InvalidAccessKeyId": (SourceDenied, "the access key id is unknown there"),
    "SignatureDoesNotMatch": (SourceDenied, _SIGNATURE),
    "InvalidToken": (SourceDenied, "the session token is not valid there"),
    **dict.fromkeys(
        ("AuthenticationFailed", "NoAuthenticationInformation", "InvalidAuthenticationInfo"),
        (SourceDenied, "the signature or its permissions are not accepted; submit a new signed URL"),
    ),
    **dict.fromkeys(
        ("UserProjectMissing", "UserProjectAccessDenied", "UserProjectInvalid", "RequesterPays"),
        (SourceDenied, "the bucket's requester pays; add userProject=... to the URL before it is signed"),
    ),
    **dict.fromkeys(
        ("AuthorizationFailure", "AuthorizationPermissionMismatch", "AuthorizationSourceIPMismatch",
         "AuthorizationProtocolMismatch", "AuthorizationServiceMismatch", "PublicAccessNotPermitted",
         "InsufficientAccountPermissions", "AccountIsDisabled", "AllAccessDisabled", "AccountProblem",
         "InvalidPayer", "KeyVaultEncryptionKeyNotFound"),
        (SourceDenied, "reading is forbidden there; check the account, its policies and the URL's permissions"),
    ),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
         "AuthorizationQueryParametersError", "TemporaryRedirect", "IncorrectEndpoint"),
        (SourceHttpError, ""),
    ),
    "KeyTooLongError": (SourceNotFound, "a key has at most 1024 bytes"),
}  # fmt: skip

_OF_THE_WORKER = {
    "InvalidAccessKeyId": "the worker's access key id is unknown there",
    "SignatureDoesNotMatch": "the worker's secret key is wrong",
    "ExpiredToken": "the worker's session token has expired",
    "RequestTimeTooSkewed": "the worker's clock is wrong; set it by NTP",
}
_BY_MESSAGE: tuple[tuple[str, tuple[type[SourceError], str]], ...] = (
    ("not yet valid", (SourceUnavailable, _CLOCK)),
    ("expire", (SourceDenied, _EXPIRED)),
    ("expiry time", (SourceDenied, _EXPIRED)),
    ("kms", (SourceDenied, _KEY)),
)


@dataclass(frozen=True)
class StoreError:
    """An error as a store describes it."""

    code: str
    message: str = ""
    """For telling errors of one code apart; it is not shown."""
    region: str | None = None
    """The region, or the endpoint, where the bucket is."""


def read_store_error(body: bytes, fields: Mapping[str, str]) -> StoreError | None:
    """Reads an error's code, message and region from an HTTP answer; None if it is none of a store."""
    named = fields.get("x-ms-error-code", "")
    found = _CODE.search(body) or (_JSON_REASON.search(body) if body[:1] in b"{[" else None)
    code = found[1].decode() if found else named if _NAME.fullmatch(named) else ""
    if not code:
        return None
    texts = [found[1] for found in (_MESSAGE.search(body), _DETAILS.search(body)) if found]
    region = fields.get("x-amz-bucket-region", "")
    match = _REGION.search(body) or _EXPECTED_REGION.search(body) or _ENDPOINT.search(body)
    if not _REGION_NAME.fullmatch(region):
        region = match[1].decode() if match else ""
    return StoreError(code, b" ".join(texts).decode(errors="replace"), region or None)


def explain_store_error(error: StoreError, what: str, *, signed: bool) -> SourceError | None:
    """Returns the error for a code that is known; None: the status alone tells what it is.

    Arguments:
        signed: the URL was signed by its sender, so that the worker's own rights do not matter.
    """
    what = f"{what} ({error.code})"
    kind, advice = _find_by_message(error) or _KINDS.get(error.code) or (None, "")
    if error.code == "AccessDenied" and kind is None:
        right = "the URL's signer" if signed else "the worker's key or role"
        kind, advice = SourceDenied, f"{right} needs s3:GetObject on it; {_PAYER}"
    if not signed:
        advice = _OF_THE_WORKER.get(error.code, advice)
    if kind is SourceHttpError:
        advice = _advise_region(error.region, signed=signed)
    return kind(f"{what}: {advice}") if kind is not None else None


def _find_by_message(error: StoreError) -> tuple[type[SourceError], str] | None:
    """Tells errors of one code apart by their text."""
    code, message = error.code, error.message.lower()
    if code.startswith("KMS.") and code not in _KINDS:
        return SourceDenied, _KEY
    if code in ("InvalidRequest", "InvalidArgument"):
        return (SourceDenied, _CUSTOMER_KEY) if "server side encryption" in message else None
    if code in ("AccessDenied", "AuthenticationFailed", "AuthorizationFailure", "ExpiredToken"):
        for words, found in _BY_MESSAGE:
            if words in message:
                return found
    return None


def _advise_region(region: str | None, *, signed: bool) -> str:
    where = f"the region {region}" if region else "another region or endpoint"
    if region and "." in region:
        where = f"the endpoint {region}"
    if signed:
        return f"the bucket is in {where}; sign the URL for that one"
    return f"the bucket is in {where}; set AWS_REGION, or VIDEOQA_S3_ENDPOINT_URL, to that on the workers"
