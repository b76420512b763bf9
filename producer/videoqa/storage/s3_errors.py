"""Errors of a store: bounds on their XML, before boto3 parses it, and their translation into ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from videoqa import errors
from videoqa.redaction import redact_text

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

__all__ = [
    "MISSING",
    "STRANGE_REPLIES",
    "BucketNotFound",
    "bound_error_bodies",
    "read_error_code",
    "translate_s3_errors",
]

_DENIED = {
    "AccessDenied",
    "403",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AllAccessDisabled",
}
MISSING = {"NoSuchKey", "404", "NotFound"}
"""Codes of an object that does not exist."""
STRANGE_REPLIES = (ValueError, KeyError, TypeError, RecursionError)
"""Errors of boto3's parser, and of ours, at a reply that no store would send: a length that is no number or is
missing, a date of the year 99999, a redirect to itself."""

_CODE = re.compile(r"[A-Za-z0-9_.]{1,64}")
_MAX_BYTES = 65_536
_MAX_MARKS = 500
"""An error of S3 has some twenty tags; boto3 recurses into them, and Python's stack ends at 1,000."""


class BucketNotFound(errors.OutputNotFound):
    """The bucket does not exist, so no object of it does."""


def bound_error_bodies(client: Any) -> None:
    """Has a client of S3 take an error whose XML no store would write by its status alone."""
    client.meta.events.register("before-parse.s3", _drop_strange_body)


def _drop_strange_body(response_dict: dict[str, Any], **_: Any) -> None:
    body = response_dict["body"]
    if response_dict["status_code"] < 300 or not isinstance(body, bytes):
        return
    # A NUL: UTF-16, in which a declaration of entities looks different.
    is_strange = b"<!" in body or b"\0" in body or body.count(b"<") > _MAX_MARKS
    if len(body) > _MAX_BYTES or is_strange:
        response_dict["body"] = b""


def read_error_code(error: ClientError) -> str:
    """Returns the code of an error; "?" where a store leaves it out, nests it, or writes a text in its place."""
    code = str(error.response.get("Error", {}).get("Code", "?"))
    return code if _CODE.fullmatch(code) else "?"


@contextmanager
def translate_s3_errors(url: str, bucket: str) -> Iterator[None]:
    """Turns whatever a request about an object raises into OutputError."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except ClientError as error:
        raise _make_error(read_error_code(error), url, bucket, str(error)) from error
    except (Boto3Error, RetriesExceededError) as error:
        cause = error.__context__  # of an upload, whose own error has no code
        code = read_error_code(cause) if isinstance(cause, ClientError) else ""
        raise _make_error(code, url, bucket, str(error)) from error
    except BotoCoreError as error:
        raise _explain_connection(url, error) from error
    except STRANGE_REPLIES as error:
        raise errors.OutputUnavailable(
            f"{url}: got a reply that is none of S3 ({type(error).__name__}), expected a store that speaks S3; "
            "check VIDEOQA_S3_ENDPOINT_URL, and try again",
            param="output",
        ) from error


def _make_error(code: str, url: str, bucket: str, text: str) -> errors.OutputError:
    if code == "NoSuchBucket":
        return BucketNotFound(f"bucket {bucket} does not exist; create it first", param="output")
    if code in MISSING:
        return errors.OutputNotFound(f"{url} does not exist", param="output")
    if code in _DENIED:
        return errors.OutputDenied(
            f"access to {url} was denied ({code}); check the credentials and the bucket's policy",
            param="output",
        )
    # The store's own text is left out: it may repeat the request, with its signature.
    told = f"the store answered {code}" if code else redact_text(text[:500])
    return errors.OutputUnavailable(f"{url}: {told}; try again, or check the store", param="output")


def _explain_connection(url: str, error: Exception) -> errors.OutputError:
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return errors.OutputDenied(
            f"no credentials for {url}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
            param="output",
        )
    return errors.OutputUnavailable(f"{url}: {redact_text(str(error))}", param="output")
