"""The health page: the doctor's findings, this worker's loops, and whether a stream reaches this browser."""

from flask import Blueprint, current_app

from broadcast.domain.permissions import Permission
from broadcast.maintenance import doctor
from broadcast.streams.hub import HUB
from broadcast.web.core.identity import allow
from broadcast.web.core.rendering import render_page
from broadcast.worker.runtime import RUNTIME

blueprint = Blueprint("health", __name__)

_SEVERITY_ORDER = ("failure", "warning", "ok")


@blueprint.get("/health")
@allow(Permission.OPERATE)
def health():
    """The page itself tests whether a proxy buffers streams: only the browser can see that."""
    findings = doctor.run_checks(current_app._get_current_object())
    findings.sort(key=lambda finding: _SEVERITY_ORDER.index(finding.state))
    runtime, hub = RUNTIME.current, HUB.current
    return render_page(
        "console/health.html",
        findings=findings,
        problems=sorted(runtime.problems.items()),
        streams=len(hub),
        head=hub.head,
        bus=runtime.bus,
    )
