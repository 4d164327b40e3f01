"""Pydantic types of what a client may send and every database can store."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

MAX_ID = 2**63 - 1


def _without_nul(value: str) -> str:
    # PostgreSQL cannot store it, and C code behind any database may stop there.
    if "\0" in value:
        raise PydanticCustomError("nul_character", "must not contain a NUL character")
    return value


RowId = Annotated[int, Field(ge=1, le=MAX_ID)]
# For texts, after their StringConstraints.
NO_NUL = AfterValidator(_without_nul)


class Body(BaseModel):
    """A request body: unknown fields are refused, and the text "2" is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def left_out() -> Any:
    """The default of a field that may be left out but not be null; ``model_fields_set`` tells, never the value."""
    return Field(default=None, json_schema_extra=_without_default)
