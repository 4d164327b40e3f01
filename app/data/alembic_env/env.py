"""Alembic's environment, the same for every service: `app.data.migrations` hands it a connection and the tables."""

from alembic import context

attributes = context.config.attributes

context.configure(
    connection=attributes["connection"],
    target_metadata=attributes["metadata"],
    version_table=attributes["version_table"],
    # Services may share a database: what is not ours is not compared, so never dropped.
    include_name=attributes["include_name"],
    # SQLite cannot alter a table: Alembic makes a new one and moves the rows.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
