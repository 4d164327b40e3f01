"""The audit log of this process's database."""

from __future__ import annotations

from app.services.identity.account_store import AccountStore
from app.services.identity.journal import Audit
from app.web import database

__all__ = ["record"]

# ``await audit.record("login", subject="7", address=address.current())``
record = Audit(AccountStore(database)).record
