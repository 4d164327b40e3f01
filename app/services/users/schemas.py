"""What crosses the wire of users."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from app.data import fields
from app.data.fields import NO_NUL, Body, RowId

# What browsers accept in <input type=email> (HTML standard, "valid e-mail address"), with at least one dot.
_EMAIL = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+$"

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), NO_NUL]
Email = Annotated[str, StringConstraints(max_length=254, pattern=_EMAIL), AfterValidator(str.lower)]


class UserPath(BaseModel):
    user_id: RowId


class UserIn(Body):
    """A whole user, as a client describes one."""

    name: Name
    email: Email


class UserChanges(Body):
    """What is to be changed of a user; what is left out stays."""

    name: Name = fields.left_out()
    email: Email = fields.left_out()


class Profile(BaseModel):
    """What everybody may know of a user."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str


class UserOut(Profile):
    """All of it: for the user, and for administrators."""

    email: str
    created_at: datetime


class UserPage(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    items: list[UserOut]
    next: str | None
