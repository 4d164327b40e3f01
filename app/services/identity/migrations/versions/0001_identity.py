"""Accounts, clients, codes, tokens, keys, and the audit log."""

import sqlalchemy as sa
from alembic import op

from app.data import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identity_accounts",
        sa.Column("id", tables.BIG_ID, nullable=False),
        sa.Column("subject", tables.key(64), nullable=False),
        sa.Column("username", tables.key(100), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("email", tables.key(254), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("roles", sa.String(500), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("locked_until", tables.UtcDateTime(), nullable=True),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identity_accounts"),
        sa.UniqueConstraint("subject", name="uq_identity_accounts_subject"),
        sa.UniqueConstraint("username", name="uq_identity_accounts_username"),
        **tables.NUMBERED,
    )
    op.create_table(
        "identity_assertions",
        sa.Column("digest", tables.key(64), nullable=False),
        sa.Column("expires_at", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_identity_assertions"),
        **tables.OPTIONS,
    )
    op.create_index("ix_identity_assertions_expires_at", "identity_assertions", ["expires_at"])
    op.create_table(
        "identity_audit",
        sa.Column("id", tables.BIG_ID, nullable=False),
        sa.Column("at", tables.UtcDateTime(), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(100), nullable=True),
        sa.Column("client_id", sa.String(64), nullable=True),
        sa.Column("address", sa.String(64), nullable=True),
        sa.Column("request_id", sa.String(128), nullable=True),
        sa.Column("detail", sa.String(500), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_identity_audit"),
        **tables.NUMBERED,
    )
    op.create_index("ix_identity_audit_at", "identity_audit", ["at"])
    op.create_table(
        "identity_clients",
        sa.Column("client_id", tables.key(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("auth_method", sa.String(32), nullable=False),
        sa.Column("secret_digest", tables.key(64), nullable=True),
        sa.Column("old_secret_digest", tables.key(64), nullable=True),
        sa.Column("old_secret_until", tables.UtcDateTime(), nullable=True),
        sa.Column("jwks", sa.Text(), nullable=True),
        sa.Column("grant_types", sa.String(500), nullable=False),
        sa.Column("redirect_uris", sa.Text(), nullable=False),
        sa.Column("logout_uris", sa.Text(), nullable=False),
        sa.Column("scope", sa.String(1000), nullable=False),
        sa.Column("audiences", sa.String(1000), nullable=False),
        sa.Column("trusted", sa.Boolean(), nullable=False),
        sa.Column("demo", sa.Boolean(), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", name="pk_identity_clients"),
        **tables.OPTIONS,
    )
    op.create_table(
        "identity_signing_keys",
        sa.Column("kid", tables.key(64), nullable=False),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("public", sa.Text(), nullable=False),
        sa.Column("signs_from", tables.UtcDateTime(), nullable=False),
        sa.Column("signs_until", tables.UtcDateTime(), nullable=False),
        sa.Column("published_until", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("kid", name="pk_identity_signing_keys"),
        sa.UniqueConstraint("signs_from", "algorithm", name="uq_identity_signing_keys_signs_from_algorithm"),
        **tables.OPTIONS,
    )
    op.create_table(
        "identity_codes",
        sa.Column("digest", tables.key(64), nullable=False),
        sa.Column("sid", tables.key(64), nullable=False),
        sa.Column("client_id", tables.key(64), nullable=False),
        sa.Column("account_id", tables.BIG_ID, nullable=False),
        sa.Column("session_digest", tables.key(64), nullable=True),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("scope", sa.String(1000), nullable=False),
        sa.Column("audience", tables.key(200), nullable=False),
        sa.Column("nonce", sa.String(255), nullable=True),
        sa.Column("challenge", sa.String(128), nullable=False),
        sa.Column("auth_time", tables.UtcDateTime(), nullable=False),
        sa.Column("expires_at", tables.UtcDateTime(), nullable=False),
        sa.Column("used_at", tables.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["identity_accounts.id"],
            name="fk_identity_codes_account_id_identity_accounts",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_identity_codes"),
        **tables.OPTIONS,
    )
    op.create_index("ix_identity_codes_expires_at", "identity_codes", ["expires_at"])
    op.create_table(
        "identity_consents",
        sa.Column("account_id", tables.BIG_ID, nullable=False),
        sa.Column("client_id", tables.key(64), nullable=False),
        sa.Column("scope", sa.String(1000), nullable=False),
        sa.Column("given_at", tables.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["identity_accounts.id"],
            name="fk_identity_consents_account_id_identity_accounts",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("account_id", "client_id", name="pk_identity_consents"),
        **tables.OPTIONS,
    )
    op.create_table(
        "identity_device_codes",
        sa.Column("digest", tables.key(64), nullable=False),
        sa.Column("user_code", tables.key(16), nullable=False),
        sa.Column("client_id", tables.key(64), nullable=False),
        sa.Column("scope", sa.String(1000), nullable=False),
        sa.Column("audience", tables.key(200), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("account_id", tables.BIG_ID, nullable=True),
        sa.Column("session_digest", tables.key(64), nullable=True),
        sa.Column("auth_time", tables.UtcDateTime(), nullable=True),
        sa.Column("interval_seconds", sa.Integer(), nullable=False),
        sa.Column("polled_at", tables.UtcDateTime(), nullable=True),
        sa.Column("expires_at", tables.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["identity_accounts.id"],
            name="fk_identity_device_codes_account_id_identity_accounts",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_identity_device_codes"),
        sa.UniqueConstraint("user_code", name="uq_identity_device_codes_user_code"),
        **tables.OPTIONS,
    )
    op.create_index("ix_identity_device_codes_expires_at", "identity_device_codes", ["expires_at"])
    op.create_table(
        "identity_families",
        sa.Column("sid", tables.key(64), nullable=False),
        sa.Column("client_id", tables.key(64), nullable=False),
        sa.Column("account_id", tables.BIG_ID, nullable=False),
        sa.Column("session_digest", tables.key(64), nullable=True),
        sa.Column("scope", sa.String(1000), nullable=False),
        sa.Column("audience", tables.key(200), nullable=False),
        sa.Column("auth_time", tables.UtcDateTime(), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.Column("expires_at", tables.UtcDateTime(), nullable=False),
        sa.Column("revoked_at", tables.UtcDateTime(), nullable=True),
        sa.Column("reason", sa.String(64), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["identity_accounts.id"],
            name="fk_identity_families_account_id_identity_accounts",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sid", name="pk_identity_families"),
        **tables.OPTIONS,
    )
    op.create_index("ix_identity_families_account_id_client_id", "identity_families", ["account_id", "client_id"])
    op.create_index("ix_identity_families_expires_at", "identity_families", ["expires_at"])
    op.create_index("ix_identity_families_session_digest", "identity_families", ["session_digest"])
    op.create_table(
        "identity_sessions",
        sa.Column("digest", tables.key(64), nullable=False),
        sa.Column("account_id", tables.BIG_ID, nullable=False),
        sa.Column("auth_time", tables.UtcDateTime(), nullable=False),
        sa.Column("expires_at", tables.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["identity_accounts.id"],
            name="fk_identity_sessions_account_id_identity_accounts",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_identity_sessions"),
        **tables.OPTIONS,
    )
    op.create_index("ix_identity_sessions_expires_at", "identity_sessions", ["expires_at"])
    op.create_table(
        "identity_refresh_tokens",
        sa.Column("digest", tables.key(64), nullable=False),
        sa.Column("sid", tables.key(64), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.Column("expires_at", tables.UtcDateTime(), nullable=False),
        sa.Column("used_at", tables.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["sid"],
            ["identity_families.sid"],
            name="fk_identity_refresh_tokens_sid_identity_families",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_identity_refresh_tokens"),
        **tables.OPTIONS,
    )
    op.create_index("ix_identity_refresh_tokens_sid", "identity_refresh_tokens", ["sid"])


def downgrade() -> None:
    # Who refers to another goes first.
    for table in (
        "identity_refresh_tokens",
        "identity_sessions",
        "identity_families",
        "identity_device_codes",
        "identity_consents",
        "identity_codes",
        "identity_signing_keys",
        "identity_clients",
        "identity_audit",
        "identity_assertions",
        "identity_accounts",
    ):
        op.drop_table(table)
