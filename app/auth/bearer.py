"""The token of the request that is being served here: who bears it, and what is wrong with it if nobody does."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from app.auth.principal import Principal
from app.errors import PlatformError


@dataclass(frozen=True, slots=True)
class Bearer:
    """Args:
    error: why a token that came along is not believed.
    """

    token: str | None = None
    principal: Principal | None = None
    error: PlatformError | None = None


NOBODY = Bearer()

current: ContextVar[Bearer] = ContextVar("app.auth.bearer", default=NOBODY)


def user_token() -> str | None:
    """The token of the user whose request this is; None for nobody, and for a client that speaks for itself."""
    bearer = current.get()
    return None if bearer.principal is None or bearer.principal.is_client else bearer.token
