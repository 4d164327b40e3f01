"""The tables of identity. Of every secret, code and token they hold a digest only; lists are words between spaces."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

from app.data import tables

metadata = tables.metadata()

# SHA-256 of a random token, in hexadecimal.
_DIGEST = tables.key(64)

accounts = Table(
    "identity_accounts",
    metadata,
    Column("id", tables.BIG_ID, primary_key=True),
    # What tokens call the account: as a rule the id that it has in the users service.
    Column("subject", tables.key(64), nullable=False, unique=True),
    Column("username", tables.key(100), nullable=False, unique=True),
    Column("name", String(100), nullable=False),
    Column("email", tables.key(254), nullable=False),
    Column("password_hash", String(255), nullable=False),
    Column("roles", String(500), nullable=False),
    Column("disabled", Boolean, nullable=False),
    # Wrong passwords since the last right one, and until when nobody may try again.
    Column("failures", Integer, nullable=False),
    Column("locked_until", tables.UtcDateTime(), nullable=True),
    Column("created_at", tables.UtcDateTime(), nullable=False),
    **tables.NUMBERED,
)

clients = Table(
    "identity_clients",
    metadata,
    Column("client_id", tables.key(64), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("auth_method", String(32), nullable=False),
    Column("secret_digest", _DIGEST, nullable=True),
    # The secret before the last rotation, which still counts until then.
    Column("old_secret_digest", _DIGEST, nullable=True),
    Column("old_secret_until", tables.UtcDateTime(), nullable=True),
    # Public keys as a JWK set, for private_key_jwt.
    Column("jwks", Text, nullable=True),
    Column("grant_types", String(500), nullable=False),
    Column("redirect_uris", Text, nullable=False),
    Column("logout_uris", Text, nullable=False),
    Column("scope", String(1000), nullable=False),
    Column("audiences", String(1000), nullable=False),
    # One of our own: nobody is asked for consent.
    Column("trusted", Boolean, nullable=False),
    # Its secret is the demo's: never to be accepted in production.
    Column("demo", Boolean, nullable=False),
    Column("created_at", tables.UtcDateTime(), nullable=False),
    **tables.OPTIONS,
)

# A login in a browser; the cookie holds the token whose digest this is.
sessions = Table(
    "identity_sessions",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("account_id", tables.BIG_ID, ForeignKey("identity_accounts.id", ondelete="CASCADE"), nullable=False),
    Column("auth_time", tables.UtcDateTime(), nullable=False),
    Column("expires_at", tables.UtcDateTime(), nullable=False, index=True),
    **tables.OPTIONS,
)

# All tokens that come from one authorization: revoked together. Its id is the claim `sid`.
families = Table(
    "identity_families",
    metadata,
    Column("sid", tables.key(64), primary_key=True),
    Column("client_id", tables.key(64), nullable=False),
    Column("account_id", tables.BIG_ID, ForeignKey("identity_accounts.id", ondelete="CASCADE"), nullable=False),
    # The login that it comes from, if it was one in a browser here.
    Column("session_digest", _DIGEST, nullable=True, index=True),
    Column("scope", String(1000), nullable=False),
    Column("audience", tables.key(200), nullable=False),
    Column("auth_time", tables.UtcDateTime(), nullable=False),
    Column("created_at", tables.UtcDateTime(), nullable=False),
    Column("expires_at", tables.UtcDateTime(), nullable=False, index=True),
    Column("revoked_at", tables.UtcDateTime(), nullable=True),
    Column("reason", String(64), nullable=True),
    Index(None, "account_id", "client_id"),
    **tables.OPTIONS,
)

codes = Table(
    "identity_codes",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    # The family that it will found.
    Column("sid", tables.key(64), nullable=False),
    Column("client_id", tables.key(64), nullable=False),
    Column("account_id", tables.BIG_ID, ForeignKey("identity_accounts.id", ondelete="CASCADE"), nullable=False),
    Column("session_digest", _DIGEST, nullable=True),
    Column("redirect_uri", Text, nullable=False),
    Column("scope", String(1000), nullable=False),
    Column("audience", tables.key(200), nullable=False),
    Column("nonce", String(255), nullable=True),
    Column("challenge", String(128), nullable=False),
    Column("auth_time", tables.UtcDateTime(), nullable=False),
    Column("expires_at", tables.UtcDateTime(), nullable=False, index=True),
    Column("used_at", tables.UtcDateTime(), nullable=True),
    **tables.OPTIONS,
)

refresh_tokens = Table(
    "identity_refresh_tokens",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("sid", tables.key(64), ForeignKey("identity_families.sid", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", tables.UtcDateTime(), nullable=False),
    Column("expires_at", tables.UtcDateTime(), nullable=False),
    Column("used_at", tables.UtcDateTime(), nullable=True),
    **tables.OPTIONS,
)

device_codes = Table(
    "identity_device_codes",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("user_code", tables.key(16), nullable=False, unique=True),
    Column("client_id", tables.key(64), nullable=False),
    Column("scope", String(1000), nullable=False),
    Column("audience", tables.key(200), nullable=False),
    # pending, approved, denied, used
    Column("state", String(16), nullable=False),
    Column("account_id", tables.BIG_ID, ForeignKey("identity_accounts.id", ondelete="CASCADE"), nullable=True),
    Column("session_digest", _DIGEST, nullable=True),
    Column("auth_time", tables.UtcDateTime(), nullable=True),
    Column("interval_seconds", Integer, nullable=False),
    Column("polled_at", tables.UtcDateTime(), nullable=True),
    Column("expires_at", tables.UtcDateTime(), nullable=False, index=True),
    **tables.OPTIONS,
)

consents = Table(
    "identity_consents",
    metadata,
    Column("account_id", tables.BIG_ID, ForeignKey("identity_accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("client_id", tables.key(64), primary_key=True),
    Column("scope", String(1000), nullable=False),
    Column("given_at", tables.UtcDateTime(), nullable=False),
    **tables.OPTIONS,
)

# One is published before it signs, and stays published until what it signed has expired.
signing_keys = Table(
    "identity_signing_keys",
    metadata,
    Column("kid", tables.key(64), primary_key=True),
    Column("algorithm", String(16), nullable=False),
    # The private key, encrypted: a compact JWE.
    Column("secret", Text, nullable=False),
    Column("public", Text, nullable=False),
    Column("signs_from", tables.UtcDateTime(), nullable=False),
    Column("signs_until", tables.UtcDateTime(), nullable=False),
    Column("published_until", tables.UtcDateTime(), nullable=False),
    # Of two processes that add the next one at once, one does.
    UniqueConstraint("signs_from", "algorithm"),
    **tables.OPTIONS,
)

# Of private_key_jwt: each may be used once.
assertions = Table(
    "identity_assertions",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("expires_at", tables.UtcDateTime(), nullable=False, index=True),
    **tables.OPTIONS,
)

audit = Table(
    "identity_audit",
    metadata,
    Column("id", tables.BIG_ID, primary_key=True),
    Column("at", tables.UtcDateTime(), nullable=False, index=True),
    Column("event", String(64), nullable=False),
    Column("subject", String(100), nullable=True),
    Column("client_id", String(64), nullable=True),
    Column("address", String(64), nullable=True),
    Column("request_id", String(128), nullable=True),
    Column("detail", String(500), nullable=True),
    **tables.NUMBERED,
)
