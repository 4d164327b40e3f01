"""`guard`: what it costs to know who asks: a token that is known, one whose signature is checked, and making one."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from app import settings as settings_room
from app.auth.algorithms import registry
from app.lab.bench import child
from app.lab.bench.lab import CPU, RATE, UNDER_LOAD, Lab
from app.lab.bench.model import Comparison, Limit, Result, Sample, Subject
from app.lab.bench.subjects import guarded
from app.lab.figures import Goal

OPEN = Subject("open", "the same view, public, no token", "guarded", "mesh_run")
KNOWN = Subject("known", "a scope asked for; the token is known", "guarded", "mesh_run")
CHECKED = Subject("checked", "a scope asked for; the signature is checked each time", "guarded", "mesh_run")
SUBJECTS = (OPEN, KNOWN, CHECKED)
COST = Goal("at most", 1.15)
_ALGORITHM = "ES256"
_HOUR = 3600


async def run(lab: Lab) -> Result:
    subjects = lab.options.chosen(SUBJECTS)
    key = ECKey.generate_key("P-256")
    keys_file = Path(lab.data_dir) / "bench.jwks"
    keys_file.write_text(json.dumps({"keys": [_public(key)]}))
    headers = (("Authorization", f"Bearer {_token(key)}"),)
    samples: list[Sample] = []
    for number in range(1, lab.options.rounds + 1):
        for subject in subjects:
            samples.append(Sample(subject.key, number, await _measure(lab, subject, keys_file, headers)))
            lab.report("guard", number, subject, samples[-1].figures)
    return Result(
        "guard",
        f"A whole service; the view answers JSON at once; {lab.options.connections} connections; {_ALGORITHM}",
        ("One token all the time: a token lives for minutes, and its bearer asks more than once.",),
        subjects,
        UNDER_LOAD,
        tuple(samples),
        (
            Comparison(KNOWN.key, OPEN.key, (CPU.key, RATE.key), COST, as_cost=True),
            Comparison(CHECKED.key, OPEN.key, (CPU.key, RATE.key), as_cost=True),
        ),
        tuple(Limit(subject.key, "errors", Goal("at most", 0)) for subject in subjects),
    )


async def _measure(lab: Lab, subject: Subject, keys_file: Path, headers: tuple[tuple[str, str], ...]) -> Any:
    environment: Mapping[str, str] = {
        **lab.environment,
        "MESH_AUTH__JWKS_FILE": str(keys_file),
        "MESH_AUTH__CACHED_TOKENS": "0" if subject is CHECKED else "1000",
    }
    path = guarded.OPEN_PATH if subject is OPEN else guarded.GUARDED_PATH
    async with child.serving(
        subject.app, subject.server, core=lab.cores.server, environment=environment, ready=guarded.OPEN_PATH
    ) as process:
        return await lab.under_load(process, path, headers=() if subject is OPEN else headers)


def _public(key: ECKey) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": key.thumbprint(), "alg": _ALGORITHM, "use": "sig"}


def _token(key: ECKey) -> str:
    auth, now = settings_room.load().auth, int(time.time())
    claims = {
        "iss": auth.issuer, "aud": auth.audience, "sub": "7", "client_id": "bench", "sid": uuid.uuid4().hex,
        "scope": f"openid {guarded.SCOPE}", "roles": [], "iat": now, "exp": now + _HOUR, "jti": uuid.uuid4().hex,
    }  # fmt: skip
    return jwt.encode({"typ": "at+jwt", "alg": _ALGORITHM, "kid": key.thumbprint()}, claims, key, registry=registry)
