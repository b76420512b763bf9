"""Schemas: the JSON schemas of all models of a document, with the descriptions below their fields in the code."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema
from pydantic_core import core_schema

__all__ = ["Schemas"]

_REF = "#/components/schemas/{model}"
_JSON_WORDS = {"None": "null", "True": "true", "False": "false"}
"""Words of Python in the code, and those of JSON in the document."""


class Schemas:
    """The schemas of models, each with its name.

    A model that stands in requests and in answers has two: an answer has all fields, a request only the required
    ones, and its schema's name ends with Input. Answers may grow, so their schemas allow more fields than they list.
    """

    def __init__(
        self, requests: Iterable[type[BaseModel]], answers: Iterable[type[BaseModel]]
    ) -> None:
        kinds: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {}
        kinds |= {(model, "validation"): None for model in requests}
        kinds |= {(model, "serialization"): None for model in answers}
        refs, found = models_json_schema(
            list(kinds), ref_template=_REF, schema_generator=_Generator
        )
        self._refs = {key: _rename(ref) for key, ref in refs.items()}
        self.components: dict[str, Any] = {
            _rename_one(name): _rename(schema)
            for name, schema in sorted(found.get("$defs", {}).items())
        }

    def refer(self, schema: type[BaseModel] | dict[str, Any], mode: JsonSchemaMode) -> Any:
        """Returns the schema of a body: a reference, if it is a model's."""
        return schema if isinstance(schema, dict) else self._refs[schema, mode]


class _Generator(GenerateJsonSchema):
    """Generates schemas without titles, with the descriptions of fields."""

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        """Generates the schema of a model."""
        found = super().model_schema(schema)
        found.pop("title", None)
        if self.mode == "serialization" and found.get("additionalProperties") is False:
            del found["additionalProperties"]
        described = _read_descriptions(cast(Any, schema["cls"]))
        for name, each in found.get("properties", {}).items():
            if name in described:
                each.setdefault("description", described[name])
        return found

    def field_is_required(
        self,
        field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField,
        total: bool,
    ) -> bool:
        """Tells if a field is always there: in an answer, one that has a default is."""
        if self.mode == "serialization":
            return field.get("serialization_exclude_if") is None
        return super().field_is_required(field, total)

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leaves titles out: they only repeat the names."""
        return False


@cache
def _read_descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Reads the texts that stand below the fields of a model and of its bases."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not issubclass(kind, BaseModel) or kind is BaseModel:
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for field, text in pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = " ".join(text.value.value.split())
    return found


def _write_json_words(text: str) -> str:
    """Returns a description with `null: ...` in place of `None: ...`."""
    return re.sub(r"\b(None|True|False)(?=:)", lambda match: _JSON_WORDS[match[1]], text)


def _rename(schema: Any) -> Any:
    """Renames all references in a schema, and writes its descriptions in the words of JSON."""
    if isinstance(schema, dict):
        return {
            name: _write_json_words(each)
            if name == "description" and isinstance(each, str)
            else _rename(each)
            for name, each in schema.items()
        }
    if isinstance(schema, list):
        return [_rename(each) for each in schema]
    if isinstance(schema, str) and schema.startswith(_REF.format(model="")):
        return _rename_one(schema)
    return schema


def _rename_one(name: str) -> str:
    """Turns pydantic's names of a model's two schemas into identifiers."""
    if name.endswith("-Input"):
        return name.removesuffix("-Input") + "Input"
    return name.removesuffix("-Output")
