"""What crosses the wire of the inventory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.data import fields
from app.data.fields import NO_NUL, Body

# Not a sku, because /inventory/reservations is a place of its own.
RESERVED = "reservations"
MAX_AVAILABLE = 1_000_000_000
MAX_LINES = 100

_SKU = StringConstraints(max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")
_REFERENCE = StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")


def _not_reserved(sku: str) -> str:
    if sku == RESERVED:
        raise PydanticCustomError("reserved_word", "is a reserved word")
    return sku


Sku = Annotated[str, _SKU, AfterValidator(_not_reserved)]
Reference = Annotated[str, _REFERENCE]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), NO_NUL]
Available = Annotated[int, Field(ge=0, le=MAX_AVAILABLE)]


class ItemPath(BaseModel):
    sku: Sku


class ReservationPath(BaseModel):
    order_ref: Reference


class NewItem(Body):
    """A whole item with its sku."""

    sku: Sku
    name: Name
    available: Available


class ItemIn(Body):
    """A whole item; its sku stands in the path."""

    name: Name
    available: Available


class ItemChanges(Body):
    """What is to be changed of an item; what is left out stays."""

    name: Name = fields.left_out()
    available: Available = fields.left_out()


class ItemOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    sku: str
    name: str
    available: int


class ItemPage(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    items: list[ItemOut]
    next: str | None


class LineIn(Body):
    sku: Sku
    quantity: Annotated[int, Field(ge=1, le=1000)]


def _each_sku_once(lines: list[LineIn]) -> list[LineIn]:
    skus = [line.sku for line in lines]
    again = [index for index, sku in enumerate(skus) if sku in skus[:index]]
    if again:
        problem = PydanticCustomError("duplicate_sku", "stands in an earlier line already")
        errors = [InitErrorDetails(type=problem, loc=(index, "sku"), input=skus[index]) for index in again]
        raise ValidationError.from_exception_data("lines", errors)
    return lines


Lines = Annotated[list[LineIn], Field(min_length=1, max_length=MAX_LINES), AfterValidator(_each_sku_once)]


class NewReservation(Body):
    """Several items at once; `order_ref` is the caller's own name for it, and makes repeating it harmless."""

    order_ref: Reference
    items: Lines


class LineOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    sku: str
    quantity: int


class ReservationOut(BaseModel):
    model_config = ConfigDict(from_attributes=True, populate_by_name=True)

    order_ref: str
    state: str
    created_at: datetime
    items: Sequence[LineOut] = Field(validation_alias="lines")
