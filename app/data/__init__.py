"""SQL, asynchronously, on whatever database the URL names: SQLite, PostgreSQL, MySQL or MariaDB.

database.py     Database: one transaction per session, and what is tried again
sessions.py     sessions on one server, in time
pool.py         its connections: opened, replaced, counted
follower.py     a read replica …
replica.py      … and when it is asked
backoff.py      the pauses between two attempts at a transaction
bounds.py       how long SQL may take within a request
backends.py     what differs between the databases: drivers, timeouts, what is said at connect
postgresql.py   asyncpg within a request's time
mysql.py        aiomysql and asyncmy within a request's time
sqlite.py       aiosqlite, in fewer trips and within a request's time
faults.py       which foreign error means what: away, lost, duplicate, still referenced
tables.py       column types and conventions that hold on all of them
fields.py       pydantic types of what a database can store: 64-bit ids, text without NUL
versions.py     a row's version, and the change that is meant for one
idempotency.py  requests that may come twice: a table, and who has dealt with them
pagination.py   opaque cursors over a primary key
changes.py      what an INSERT, UPDATE or DELETE did
migrations.py   Alembic per service, once, however many processes start
alembic_env/    Alembic's environment and the template of a revision
"""

from app.data.database import Database
from app.data.faults import Away, Contended, Duplicate, Lost, StillReferenced

__all__ = ["Away", "Contended", "Database", "Duplicate", "Lost", "StillReferenced"]
