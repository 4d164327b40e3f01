"""What users says."""

from __future__ import annotations

from app.events import Event, Outbox
from app.services.users.models import metadata


class UserChanged(Event, type="users.changed", key="user_id"):
    """A user is different from before; `name` is the present one."""

    user_id: int
    name: str


class UserRemoved(Event, type="users.removed", key="user_id"):
    """There is no such user any more, nor will there be another with this id."""

    user_id: int


outbox = Outbox("users", metadata, sends=(UserChanged, UserRemoved))
