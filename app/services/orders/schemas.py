"""What crosses the wire of orders."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.data.fields import Body, RowId
from app.data.pagination import PageQuery

MAX_LINES = 100
MAX_QUANTITY = 1000

Sku = Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class OrderPath(BaseModel):
    order_id: RowId


class OrderQuery(PageQuery):
    user_id: RowId | None = None


class LineIn(Body):
    sku: Sku
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY)]


def _each_sku_once(lines: list[LineIn]) -> list[LineIn]:
    skus = [line.sku for line in lines]
    again = [index for index, sku in enumerate(skus) if sku in skus[:index]]
    if again:
        problem = PydanticCustomError("duplicate_sku", "stands in an earlier line already")
        errors = [InitErrorDetails(type=problem, loc=(index, "sku"), input=skus[index]) for index in again]
        raise ValidationError.from_exception_data("lines", errors)
    return lines


class NewOrder(Body):
    """Who orders what."""

    user_id: RowId
    items: Annotated[list[LineIn], Field(min_length=1, max_length=MAX_LINES), AfterValidator(_each_sku_once)]


class LineOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    sku: str
    quantity: int


class ShortageOut(BaseModel):
    sku: str
    requested: int
    available: int


class RejectionOut(BaseModel):
    """Why nothing came of an order."""

    model_config = ConfigDict(from_attributes=True)

    code: str = Field(examples=["out_of_stock", "unknown_items", "timeout"])
    detail: str
    skus: Sequence[str]
    shortages: Sequence[ShortageOut]


class OrderOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    user_id: int
    state: str = Field(examples=["pending", "confirmed", "rejected", "cancelled"])
    items: Sequence[LineOut] = Field(validation_alias="lines")
    created_at: datetime
    rejection: RejectionOut | None


class OrderPage(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    items: list[OrderOut]
    next: str | None
