"""Logs and metrics: the only room that knows structlog and Prometheus.

logs        one line per event on stderr
redaction   what must not stand in them
metrics     one Prometheus registry per process
events      what events say, counted
database    the database's pools in it
"""

from app.telemetry.events import EventMetrics
from app.telemetry.logs import configure, log
from app.telemetry.metrics import MeshMetrics, Metrics
from app.telemetry.redaction import REDACTED, redact

__all__ = ["REDACTED", "EventMetrics", "MeshMetrics", "Metrics", "configure", "log", "redact"]
