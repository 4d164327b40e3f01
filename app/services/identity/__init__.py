"""Identity: who may do what. An OAuth 2.0 and OpenID Connect authorization server on Authlib.

models.py       its tables, its alone
migrations/     Alembic revisions
"""

from pathlib import Path

from app.service import Service
from app.services.identity.models import metadata

service = Service(
    "identity",
    prefixes=("/oauth", "/.well-known", "/account"),
    models=metadata,
    migrations=Path(__file__).parent / "migrations" / "versions",
    description="Who may do what: OAuth 2.0 tokens, OpenID Connect, accounts and clients.",
)
