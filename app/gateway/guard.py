"""What the edge asks of whoever goes in below a prefix, before a service is troubled: the services ask again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from app.auth.assembly import Auth
from app.auth.rules import Asked, Rule, requires
from app.errors import Forbidden, InvalidToken, Unauthorized

_SCHEME = b"bearer"


class EdgeGuard:
    """The rules of the edge.

    Args:
        prefixes: public path prefix → scopes, any one of which lets a token in.
    """

    def __init__(self, auth: Auth, prefixes: Mapping[str, Sequence[str]]) -> None:
        self._auth = auth
        # The longest first: it is the one that counts.
        self._rules = [(prefix, _any_of(prefixes[prefix])) for prefix in sorted(prefixes, key=len, reverse=True)]

    def __repr__(self) -> str:
        return f"<EdgeGuard {', '.join(f'{prefix}: {rule}' for prefix, rule in self._rules) or 'asks nothing'}>"

    def rule_for(self, path: str) -> Rule | None:
        """The rule of the longest prefix of `path` that has one."""
        return next((rule for prefix, rule in self._rules if path == prefix or path.startswith(f"{prefix}/")), None)

    async def admit(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Return if a request for `path` may go on to its service.

        Args:
            path: decoded, as it is routed.
            headers: as received, names lower-case.

        Raises:
            Unauthorized: the prefix asks for a token, and there is none, or none that is believed.
            Forbidden: the token has none of the scopes.
            Unavailable: the issuer's keys are not to be had.
        """
        rule = self.rule_for(path)
        if rule is None:
            return
        principal = await self._auth.verifier.verify(_token(headers))
        if not rule.holds(Asked(principal)):
            raise Forbidden(f"What lies below this path asks for: {rule}", scopes=rule.scopes)


def _any_of(scopes: Sequence[str]) -> Rule:
    first, *others = scopes
    rule = requires(first)
    for scope in others:
        rule |= requires(scope)
    return rule


def _token(headers: Iterable[tuple[bytes, bytes]]) -> str:
    found = [value for name, value in headers if name == b"authorization"]
    if not found:
        raise Unauthorized("What lies below this path asks for an access token")
    scheme, _, token = found[0].partition(b" ")
    if len(found) > 1 or scheme.lower() != _SCHEME:
        raise InvalidToken("It is not a bearer token")
    return token.strip().decode("latin-1")
