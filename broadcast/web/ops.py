"""Endpoints for operators and monitoring: liveness, readiness, metrics."""

from flask import Blueprint, Response, jsonify
from sqlalchemy.exc import SQLAlchemyError

from broadcast.config.settings import SETTINGS
from broadcast.observability import metrics
from broadcast.store import schema
from broadcast.web.core.identity import allow
from broadcast.worker.runtime import RUNTIME

blueprint = Blueprint("ops", __name__)


@blueprint.get("/healthz")
@allow("anyone")
def alive():
    """Liveness: the process responds. Nothing else is checked."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
@allow("anyone")
def ready():
    """Readiness: 200 when this worker can serve, else 503. `degraded` names parts that fail but are not required."""
    runtime, settings = RUNTIME.current, SETTINGS.current
    failing, degraded = _check_database()
    if not runtime.is_started:
        failing["tail"] = "The log has not been read yet."
    if settings.redis_url and not runtime.bus.is_healthy:
        degraded["redis"] = "Redis is not connected; the log is polled instead."
    if runtime.bridge and runtime.bridge.problem:
        degraded["kafka"] = runtime.bridge.problem
    degraded |= dict.fromkeys(runtime.problems, "This loop failed and is being restarted; see the log.")
    status = "failing" if failing else "degraded" if degraded else "ok"
    return jsonify(status=status, failing=failing, degraded=degraded), 503 if failing else 200


def _check_database() -> tuple[dict[str, str], dict[str, str]]:
    """Failures of the database, and its problems that do not prevent serving."""
    if problem := schema.find_database_problem():
        return {"database": problem}, {}
    try:
        problem, notice = schema.check_compatibility()
    except SQLAlchemyError:
        return {"database": "The database does not answer."}, {}
    return {"schema": problem} if problem else {}, {"schema": notice} if notice else {}


@blueprint.get("/metrics")
@allow("operator")
def prometheus():
    return Response(metrics.render_metrics(), mimetype="text/plain; version=0.0.4")
