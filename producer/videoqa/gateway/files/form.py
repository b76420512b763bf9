"""FormParser: one uploaded file and its fields out of multipart/form-data, piece by piece, in any order.

The bytes of the file are passed on as they come, and nothing of them is held. All else is bounded: names of fields are
those that we know, each once, with short values; a part has few and short headers.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from videoqa.errors import InvalidRequest
from videoqa.gateway.files.names import check_filename

__all__ = ["FileBegin", "FormParser", "parse_parameters"]

_MOST_VALUE_BYTES = 512
_MOST_HEADERS, _MOST_HEADER_BYTES = 8, 4096
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{1,70}")
_PARAMETER = re.compile(
    r"""[ \t]*;[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]{1,100})=(?:"((?:[^"\\]|\\.)*)"|([^;" \t]*))"""
)
_SHOWN = 100


@dataclass(frozen=True)
class FileBegin:
    """The file begins; its bytes follow."""

    filename: str


def parse_parameters(header: str) -> tuple[str, dict[str, str]]:
    """Returns a header's value in lower case, and its parameters.

    Raises:
        ValueError: it cannot be read to its end, or has a parameter twice, so that two programs could differ.
    """
    value, semicolon, rest = header.partition(";")
    rest = semicolon + rest
    found: dict[str, str] = {}
    at = 0
    while at < len(rest.rstrip()):
        match = _PARAMETER.match(rest, at)
        name = match[1].lower() if match else ""
        if match is None or name in found:
            raise ValueError("a parameter is malformed, or comes twice")
        found[name] = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
        at = match.end()
    return value.strip().lower(), found


class FormParser:
    """Takes a body apart; `feed` returns what came of the file."""

    def __init__(self, content_type: str, *, file_field: str, fields: Collection[str] = ()) -> None:
        """
        Arguments:
            fields: names of the fields beside the file.

        Raises:
            InvalidRequest: the header has no boundary, or one that is not allowed.
        """
        try:
            boundary = parse_parameters(content_type)[1].get("boundary", "")
        except ValueError:
            boundary = ""
        if not _BOUNDARY.fullmatch(boundary):
            raise InvalidRequest(
                "got the header Content-Type without a boundary of 1 to 70 characters, expected "
                "multipart/form-data; boundary=..."
            )
        self.fields: dict[str, str] = {}
        self._file_field = file_field
        self._known = (file_field, *fields)
        self._found: list[FileBegin | bytes] = []
        self._seen: set[str] = set()
        self._field: str | None = None
        self._value = b""
        self._headers: dict[str, str] = {}
        self._name = b""
        self._text = b""
        self._has_ended = False
        self._parser = MultipartParser(
            boundary.encode(),
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_name,
                "on_header_value": self._add_text,
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_data,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_count=_MOST_HEADERS,
            max_header_size=_MOST_HEADER_BYTES,
        )

    def feed(self, data: bytes) -> list[FileBegin | bytes]:
        """Takes bytes of the body; returns the file's beginning and its bytes, as far as they came.

        Raises:
            InvalidRequest: the form is malformed, or has what it may not have.
        """
        if self._has_ended:  # an epilogue means nothing
            return []
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequest(
                f"the form is no multipart/form-data: {error!s:.100}; expected parts that the boundary of Content-Type "
                f"divides, each with at most {_MOST_HEADERS} headers of {_MOST_HEADER_BYTES} bytes"
            ) from error
        found, self._found = self._found, []
        return found

    def finish(self) -> None:
        """Raises InvalidRequest if the form has not ended, or had no file."""
        if not self._has_ended:
            raise InvalidRequest("the form ends early, expected the boundary with -- behind it")
        if self._file_field not in self._seen:
            raise InvalidRequest(
                f"got a form without {self._file_field!r}, expected a part of this name",
                param=self._file_field,
            )

    def _begin_part(self) -> None:
        self._headers = {}
        self._name = self._text = b""

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_text(self, data: bytes, start: int, end: int) -> None:
        self._text += data[start:end]

    def _end_header(self) -> None:
        name = self._name.decode("latin-1").lower()
        if name in self._headers:
            raise InvalidRequest(f"got the header {name!r:.100} twice in a part, expected it once")
        try:
            self._headers[name] = self._text.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest(f"the header {name!r:.100} of a part is not UTF-8") from None
        self._name = self._text = b""

    def _begin_data(self) -> None:
        try:
            kind, given = parse_parameters(self._headers.get("content-disposition", ""))
        except ValueError as error:
            raise InvalidRequest(f"Content-Disposition of a part: {error}") from error
        name = given.get("name", "")
        if kind != "form-data" or name not in self._known:
            raise InvalidRequest(
                f"got the part {name[:_SHOWN]!r}, expected form-data with a name of {', '.join(self._known)}",
                param=name[:_SHOWN] or None,
            )
        if name in self._seen:
            raise InvalidRequest(f"{name}: got it twice, expected one", param=name)
        coding = self._headers.get("content-transfer-encoding", "binary").strip().lower()
        if coding not in ("binary", "7bit", "8bit"):
            raise InvalidRequest(
                f"{name}: got the transfer encoding {coding[:_SHOWN]!r}, expected bytes as they are",
                param=name,
            )
        self._seen.add(name)
        self._field, self._value = name, b""
        if name == self._file_field:
            self._found.append(FileBegin(_read_filename(given, name)))

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._field == self._file_field:
            self._found.append(data[start:end])
        elif len(self._value) + end - start > _MOST_VALUE_BYTES:
            raise InvalidRequest(
                f"{self._field}: got more than {_MOST_VALUE_BYTES} bytes", param=self._field
            )
        else:
            self._value += data[start:end]

    def _end_part(self) -> None:
        if self._field is not None and self._field != self._file_field:
            try:
                self.fields[self._field] = self._value.decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidRequest(f"{self._field}: got no UTF-8", param=self._field) from None
        self._field = None

    def _end(self) -> None:
        self._has_ended = True


def _read_filename(given: dict[str, str], field: str) -> str:
    """Returns the file's name; that of RFC 8187 if it is the only one, as older clients write it."""
    name, extended = given.get("filename"), given.get("filename*")
    if extended is not None:
        charset, _, rest = extended.partition("'")
        if name is not None or charset.lower() != "utf-8":
            raise InvalidRequest(
                f"{field}: got filename*, expected filename alone, in UTF-8", param=field
            )
        name = unquote(rest.partition("'")[2], errors="replace")
    if name is None:
        raise InvalidRequest(f'{field}: got no file name, expected filename="..."', param=field)
    return check_filename(name, field)
