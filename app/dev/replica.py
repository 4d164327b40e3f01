"""What one process of `mesh up` runs: bring the service's database up to date, then serve as in production.

The replicas of a service start together; a file lock lets one of them seed while the others wait.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app import settings as settings_module
from app.asgi import serve
from app.data import Database, migrations
from app.errors import PlatformError
from app.service import Service, load
from app.settings import Settings


def main() -> None:
    """Run the service that MESH_SERVICE names; what stops it from starting is one line on stderr."""
    try:
        settings = settings_module.load()
        if settings.env != "production":
            asyncio.run(prepare(load(settings.service or ""), settings))
        serve(settings)
    except PlatformError as error:
        sys.exit(f"{error.code}: {error.detail}")


async def prepare(service: Service, settings: Settings) -> None:
    """Migrate the service's tables to their newest revision, and put demo data into an empty database."""
    if service.models is None:
        return
    url = settings.database_url_of(service.name)
    with _one_at_a_time(settings.data_dir / "run" / f"prepare-{service.name}.lock"):
        await migrations.upgrade(service, url)
        if service.seed is not None:
            await _seed(service, url, settings)


async def _seed(service: Service, url: str, settings: Settings) -> None:
    database = Database(url, settings.data)
    try:
        if service.seed is not None:
            await service.seed(database, settings)
    finally:
        await database.close()


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main()
