"""`tokens`: how many client-credentials tokens one identity process gives in a second, on SQLite, each of them signed."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from app import service
from app import settings as settings_room
from app.data import Database, migrations
from app.lab.bench import child
from app.lab.bench.lab import UNDER_LOAD, Lab
from app.lab.bench.model import Limit, Result, Sample, Subject
from app.lab.figures import Goal
from app.services.identity.client import CLIENT_CREDENTIALS, Client, digest
from app.services.identity.client_auth import BASIC
from app.services.identity.client_store import ClientStore

CLIENT_ID, AUDIENCE = "bench", "mesh"
ES256 = Subject("es256", "an ES256 token, by client_secret_basic", "identity", "mesh_run")
EDDSA = Subject("eddsa", "an EdDSA token, by client_secret_basic", "identity", "mesh_run")
SUBJECTS = (ES256, EDDSA)
_ALGORITHMS = {ES256.key: "ES256", EDDSA.key: "EdDSA"}
_READY = "/oauth/jwks"


async def run(lab: Lab) -> Result:
    await lab.require_redis()
    subjects, secret = lab.options.chosen(SUBJECTS), secrets.token_urlsafe(32)
    await _prepare(Path(lab.data_dir), secret)
    samples: list[Sample] = []
    for number in range(1, lab.options.rounds + 1):
        for subject in subjects:
            environment = {**lab.environment, "MESH_IDENTITY__ALGORITHM": _ALGORITHMS[subject.key]}
            async with child.serving(
                subject.app, subject.server, core=lab.cores.server, environment=environment, ready=_READY
            ) as process:
                figures = await lab.under_load(
                    process, "/oauth/token", method="POST", headers=_headers(secret), body=_FORM
                )
            samples.append(Sample(subject.key, number, figures))
            lab.report("tokens", number, subject, figures)
    return Result(
        "tokens",
        f"POST /oauth/token, grant_type=client_credentials; {lab.options.connections} connections; SQLite",
        ("The client is read from the database each time; nothing is written.",),
        subjects,
        UNDER_LOAD,
        tuple(samples),
        limits=tuple(Limit(subject.key, "errors", Goal("at most", 0)) for subject in subjects),
    )


_FORM = urlencode({"grant_type": CLIENT_CREDENTIALS, "scope": "users:read"}).encode()


def _headers(secret: str) -> tuple[tuple[str, str], ...]:
    proof = base64.b64encode(f"{CLIENT_ID}:{secret}".encode()).decode()
    return (("Authorization", f"Basic {proof}"), ("Content-Type", "application/x-www-form-urlencoded"))


async def _prepare(data_dir: Path, secret: str) -> None:
    """An identity database with one client in it."""
    settings = settings_room.load(data_dir=data_dir)
    url = settings.database_url_of(service.IDENTITY)
    await migrations.upgrade(service.load(service.IDENTITY), url)
    database = Database(url, settings.data)
    try:
        client = Client(
            client_id=CLIENT_ID,
            name="Bench",
            auth_method=BASIC,
            grant_types=(CLIENT_CREDENTIALS,),
            scopes=("users:read",),
            audiences=(AUDIENCE,),
            secret_digest=digest(secret),
        )
        await ClientStore(database).add(client, now=datetime.now(UTC))
    finally:
        await database.close()
