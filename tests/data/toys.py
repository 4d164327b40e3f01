"""Services of one table, whose revisions a test writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table

from app.data import tables


@dataclass(frozen=True)
class Toy:
    """A service with one table, and revisions that a test writes."""

    name: str
    models: MetaData | None
    migrations: Path | None


def toy(folder: Path, name: str = "toy", *columns: str) -> Toy:
    # Alembic's configuration takes a percent sign for a reference and a space for a separator.
    versions = folder / "100% ours" / name
    versions.mkdir(parents=True, exist_ok=True)
    models = tables.metadata()
    Table(f"{name}s", models, Column("id", tables.BIG_ID, primary_key=True), *(Column(c, Integer) for c in columns))
    return Toy(name, models, versions)


def revision(toy: Toy, number: int, body: str, *, back: str = "pass") -> None:
    assert toy.migrations is not None
    before = repr(f"{number - 1:04}" if number > 1 else None)
    (toy.migrations / f"{number:04}.py").write_text(
        f"from alembic import op\nimport sqlalchemy as sa\nrevision = '{number:04}'\ndown_revision = {before}\n"
        f"def upgrade():\n    {body}\n\n\ndef downgrade():\n    {back}\n"
    )


CREATE = "op.create_table('toys', sa.Column('id', sa.Integer, primary_key=True))"
PRICE = "op.add_column('toys', sa.Column('price', sa.Integer))"


def with_two_revisions(folder: Path) -> Toy:
    """A service whose second revision adds a column."""
    service = toy(folder)
    revision(service, 1, CREATE, back="op.drop_table('toys')")
    revision(service, 2, PRICE, back="op.drop_column('toys', 'price')")
    return service
