"""Identity: who may do what. An OAuth 2.0 and OpenID Connect authorization server on Authlib.

views.py          the routes of the token side
authorize.py      the authorization endpoint, as its pages see it
device.py         user codes, as their page sees them
server.py         Authlib's server, made strict
requests.py       what a client says, and where it may say it
client_auth.py    how a client proves who it is
grants/           the ways to a token
introspection.py  whether a token counts, and its end
registration.py   clients that register themselves
discovery.py      what the server can do
tokens.py         what tokens claim: pure
scopes.py         kinds of scopes, and who may have which: pure
catalogue.py      the scopes of the services that there are
authorization.py  codes, families, refresh tokens: pure
client.py         a client, as it is registered: pure
keys.py           when signing keys change: pure
algorithms.py     what is signed with
key_store.py      the signing keys of this process
clients.py        the clients of this process's database
repository.py     its authorizations, and the news when one ends
accounts.py       the rules of logins and lockouts
passwords.py      argon2id, a few at a time
journal.py        what happened: a row that stays, and a line in the log
audit.py          that of this process
address.py        who is at the other end
housekeeping.py   when what has expired is removed
alongside.py      what goes on while identity serves
admin.py          accounts from the command line
client_admin.py   clients from the command line, and what of them production refuses
pages/            what people see in a browser
token_store.py, client_store.py, account_store.py   every query
demo.py           accounts and clients for development
models.py         its tables, its alone
migrations/       Alembic revisions
"""

from pathlib import Path

from app.service import Service
from app.services.identity.alongside import alongside
from app.services.identity.demo import seed
from app.services.identity.models import metadata
from app.services.identity.pages import pages
from app.services.identity.views import oauth, well_known

service = Service(
    "identity",
    blueprints=(oauth, well_known, pages),
    prefixes=("/oauth", "/.well-known", "/account"),
    models=metadata,
    migrations=Path(__file__).parent / "migrations" / "versions",
    seed=seed,
    alongside=alongside,
    description="Who may do what: OAuth 2.0 tokens, OpenID Connect, accounts and clients.",
)
