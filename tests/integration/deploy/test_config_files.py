"""The files of `deploy/` are valid: each is checked by its program's own validator, and against the code.

No container is started here; what Docker and Kubernetes do with these files is not tested.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from broadcast.config.settings import Settings
from tests.support.servers import find_program_or_skip, make_self_signed_certificate
from tests.support.system import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
BESIDE_PYTHON = Path(sys.executable).parent
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
_CONTAINER_ONLY = {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def test_nginx_accepts_its_configuration(tmp_path: Path):
    make_self_signed_certificate(tmp_path / "tls")
    text = (DEPLOY / "nginx.conf").read_text().replace("/tmp/nginx", f"{tmp_path}/nginx")
    text = re.sub(r"\bnode[12]:8000", "127.0.0.1:8000", text)  # names that only compose knows
    (tmp_path / "nginx.conf").write_text(text)
    _accepts(find_program_or_skip("nginx", "nginx"), "-t", "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log")


def test_nginx_holds_back_neither_of_the_two_streams_and_overwrites_what_a_client_says_of_itself(app):
    text = (DEPLOY / "nginx.conf").read_text()
    [location, block] = re.findall(r"location ~ (\S+) \{(.*?)\n        \}", text, re.DOTALL)[0]
    streams = {
        rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("stream.") and "GET" in rule.methods
    }
    assert streams == {"/inbox/stream", "/api/sse/connect"}
    assert all(re.search(location, path) for path in streams)
    assert "proxy_buffering off;" in block
    assert "proxy_set_header" not in block, "one of its own would drop all of the others"
    for header in ("Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Request-ID", "X-Forwarded-User"):
        assert f"proxy_set_header {header} " in text


def test_dockerfile_passes_hadolint():
    _accepts(BESIDE_PYTHON / "hadolint", DEPLOY / "Dockerfile")


def test_image_holds_what_the_program_needs_and_ignores_the_rest():
    copied = set(re.findall(r"^COPY (?!--from)(.+)", (DEPLOY / "Dockerfile").read_text(), re.M))
    sources = {source for line in copied for source in line.split()[:-1]}
    let_in = {line[1:] for line in (PROJECT_ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources == let_in
    assert all((PROJECT_ROOT / source).exists() for source in sources)


def test_compose_file_follows_the_specification():
    _accepts(BESIDE_PYTHON / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_compose_waits_for_what_each_service_needs():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        for needed, condition in service.get("depends_on", {}).items():
            is_healthy = condition["condition"] == "service_healthy"
            judged = services[needed].get("healthcheck") or services[needed]["image"].startswith("broadcast:")
            assert not is_healthy or judged, f"{name} waits for {needed}, which has no health check"
    assert services["node1"] == services["node2"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifest_follows_the_schema_of_kubernetes(path: Path):
    for manifest in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_kustomization_puts_all_manifests_together():
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    built = _accepts("kubectl", "kustomize", DEPLOY / "kubernetes")
    kinds = {manifest["kind"] for manifest in yaml.safe_load_all(built)}
    of_files = {manifest["kind"] for path in MANIFESTS for manifest in yaml.safe_load_all(path.read_text())}
    assert kinds == of_files - {"Secret"} | {"ConfigMap"}  # a secret everyone makes by themselves


def test_every_variable_that_is_set_is_a_setting():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    secret = yaml.safe_load((DEPLOY / "kubernetes/secret.example.yaml").read_text())
    settings = (DEPLOY / "kubernetes/settings.env").read_text()
    image = re.search(r"^ENV (.*?)^COPY", (DEPLOY / "Dockerfile").read_text(), re.M | re.S)[1]
    unit = re.search(r"^Environment=(.*)$", (DEPLOY / "broadcast.service").read_text(), re.M)[1]
    named = {*compose["services"]["node1"]["environment"], *secret["stringData"]}
    named |= set(re.findall(r"([A-Z_]+)=", image + unit + settings))
    assert named - _CONTAINER_ONLY <= {name.upper() for name in Settings.model_fields}


def test_systemd_accepts_the_unit_and_finds_it_well_confined(tmp_path: Path):
    analyze = find_program_or_skip("systemd-analyze", "systemd")
    unit = tmp_path / "broadcast.service"
    text = (DEPLOY / "broadcast.service").read_text()
    unit.write_text(text.replace("/opt/broadcast/.venv/bin/python", sys.executable))
    _accepts(analyze, "verify", unit)
    judged = json.loads(_accepts(analyze, "security", "--offline=true", "--json=short", unit))
    root = [item for item in judged if item["name"].startswith("User") and item["exposure"]]
    assert root == []
    _accepts(analyze, "security", "--offline=true", "--threshold=25", unit)  # of 100


def _accepts(*words: str | Path) -> str:
    """Run the validator; return what it prints. Fails with its complaint."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[warn]" not in done.stderr, done.stderr
    return done.stdout
