"""SQL, asynchronously, on whatever database the URL names: SQLite, PostgreSQL, MySQL or MariaDB.

database.py     Database: one pool, one transaction per session
backends.py     what differs between the databases: drivers, timeouts, what is said at connect
faults.py       which foreign error means what: away, duplicate, still referenced
tables.py       column types and conventions that hold on all of them
fields.py       pydantic types of what a database can store: 64-bit ids, text without NUL
versions.py     a row's version, and the change that is meant for one
idempotency.py  requests that may come twice: a table, and who has dealt with them
pagination.py   opaque cursors over a primary key
migrations.py   Alembic per service, once, however many processes start
alembic_env/    Alembic's environment and the template of a revision
"""

from app.data.database import Database
from app.data.faults import Contended, Duplicate, StillReferenced

__all__ = ["Contended", "Database", "Duplicate", "StillReferenced"]
