"""The guard of a resource server: whom a token stands for, what a route asks for, and tokens for our own calls.

    principal.py     who asks: a user or a client, with scopes and roles
    rules.py         what a route asks for: scopes, roles, owners, callers, and what `&`, `|` and `~` make of them
    declared.py      which rule a view, a class or a blueprint has declared
    algorithms.py    the signature algorithms that are believed, and no others
    claims.py        a token's claims, checked (RFC 9068)
    keyring.py       the issuer's public keys: fetched once for all who wait, the last good ones kept
    verifier.py      token → principal, remembered until the token expires
    revocations.py   sessions that have ended before their tokens
    introspection.py the issuer's own word on a token (RFC 7662), for routes that ask for it
    outbound.py      tokens for calls to peers: our own, or in the name of a user (RFC 8693)
    issuer.py        the issuer, as we see it: its keys, its tokens, its word
    bearer.py        the token of the request that is being served
    assembly.py      all of it put together for one process

It knows neither Flask's request, nor the mesh, nor a database: what it needs of them is handed to it as callables.
"""

from app.auth.principal import Principal
from app.auth.rules import Asked, Rule, callers, owner, owner_or, public, requires, requires_role

__all__ = ["Asked", "Principal", "Rule", "callers", "owner", "owner_or", "public", "requires", "requires_role"]
