"""Who asks: what a verified token says of its bearer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """The bearer of a verified token.

    Args:
        subject: the user's or, if nobody stands behind it, the client's own name.
        client_id: the client that got the token.
        scopes: what the token is good for.
        roles: the user's; a client has none.
        audience: whom the token is meant for.
        expires_at: seconds of the epoch.
        session: the token family that it belongs to; ends with a logout. None for clients.
        actor: who acts in the user's name, after a token exchange (RFC 8693): the service that calls now.
    """

    subject: str
    client_id: str
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    audience: frozenset[str] = frozenset()
    expires_at: float = float("inf")
    session: str | None = None
    actor: str | None = None

    @property
    def is_client(self) -> bool:
        """Whether a program speaks for itself and no user stands behind it."""
        return self.subject == self.client_id and self.session is None

    @property
    def caller(self) -> str | None:
        """The service that calls: for itself, or in a user's name. None for a user's own client."""
        return self.actor if self.actor is not None else self.client_id if self.is_client else None

    def owns(self, owner: object) -> bool:
        """Whether `owner` (of whatever type, as in a path or a row) is this user. A client owns nothing."""
        return owner is not None and not self.is_client and str(owner) == self.subject
