"""`hop`: a view that calls a peer and answers with what it said; measured is the caller."""

from __future__ import annotations

from app.lab.bench.lab import CPU, RATE, UNDER_LOAD, Lab
from app.lab.bench.model import Comparison, Limit, Result, Subject
from app.lab.bench.subjects import views
from app.lab.figures import Goal

SERVICE = Subject("service", "whole service, mesh client, `mesh run`", "service", "mesh_run")
OURS = Subject("ours", "Flask on the bridge, mesh client, `mesh run`'s server", "ours_hop", "mesh_run")
FASTAPI = Subject("fastapi", "FastAPI, httpx, uvicorn", "fastapi_hop", "uvicorn")
FLASK = Subject("flask", "Flask, requests, gunicorn gthread × 64", "flask_hop", "gunicorn")

SUBJECTS = (SERVICE, OURS, FASTAPI, FLASK)
AGAINST_FASTAPI, AGAINST_FLASK = Goal("at least", 5.0), Goal("at least", 2.0)


async def run(lab: Lab) -> Result:
    subjects = lab.options.chosen(SUBJECTS)
    async with lab.peer() as peer:
        samples = await lab.rounds(
            "hop",
            subjects,
            lambda process: lab.under_load(process, views.ORDER_PATH),
            ready=views.ORDER_PATH,
            extra={views.PEER_URL: peer.url},
        )
    goals = ((FASTAPI.key, AGAINST_FASTAPI), (FLASK.key, AGAINST_FLASK))
    ours = (SERVICE.key, OURS.key)
    return Result(
        "hop",
        f"GET {views.ORDER_PATH}, a view that calls a peer; {lab.options.connections} connections",
        (
            "The peer is the same bare server for all; it runs on the load generator's core, the caller has its own.",
            "Ours find it in Redis; the others are given its address. No other side writes an access log.",
        ),
        subjects,
        UNDER_LOAD,
        tuple(samples),
        tuple(Comparison(one, other, (CPU.key, RATE.key), goal) for one in ours for other, goal in goals),
        tuple(Limit(one, "errors", Goal("at most", 0)) for one in ours),
    )
