"""The examples of `deploy/` are secure by default: no known password, and no unnecessary network path.

Each file is read here as its program would read it; what runs without containers is run.
"""

import os
import re
import stat
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from broadcast.config.secret_keys import find_weakness
from broadcast.config.settings import Settings
from tests.integration.deploy.test_config_files import DEPLOY, MANIFESTS
from tests.support.servers import make_nginx, make_self_signed_certificate
from tests.support.system import PROJECT_ROOT

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KUBERNETES = [manifest for path in MANIFESTS for manifest in yaml.safe_load_all(path.read_text())]
[DEPLOYMENT] = [manifest for manifest in KUBERNETES if manifest["kind"] == "Deployment"]
POD = DEPLOYMENT["spec"]["template"]["spec"]


def set_up(folder: Path, *hosts: str) -> dict[str, str]:
    """Run a copy of `deploy/setup`; return what it wrote."""
    script = folder / "setup"
    script.write_text((DEPLOY / "setup").read_text())
    script.chmod(0o755)
    subprocess.run([script, *hosts], check=True, capture_output=True, umask=0)
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())


def filled_in(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)(?::[?-]([^}]*))?\}", lambda found: values.get(found[1]) or found[2] or "", text)


# ---- Compose


def test_setup_makes_passwords_that_nobody_else_has_and_keeps_them(tmp_path: Path):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    first, other = set_up(tmp_path / "one"), set_up(tmp_path / "other", "a.example", "b.example")
    secrets = {"SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert first.keys() == secrets | {"TRUSTED_HOSTS"}
    assert len({first[name] for name in secrets} | {other[name] for name in secrets}) == 6
    for name in secrets:
        assert re.fullmatch(r"[0-9a-f]{64}", first[name])
        assert find_weakness(first[name]) is None
    assert (first["TRUSTED_HOSTS"], other["TRUSTED_HOSTS"]) == ("localhost", "a.example,b.example")
    assert stat.S_IMODE((tmp_path / "one/.env").stat().st_mode) == 0o600
    assert set_up(tmp_path / "one", "c.example") == first, "what is there stays"
    (tmp_path / "one/.env").write_text("REDIS_PASSWORD=mine\n")
    os.chmod(tmp_path / "one/.env", 0o644)
    assert set_up(tmp_path / "one")["REDIS_PASSWORD"] == "mine"
    assert stat.S_IMODE((tmp_path / "one/.env").stat().st_mode) == 0o600
    assert "deploy/.env" in (PROJECT_ROOT / ".gitignore").read_text().splitlines()


def test_nothing_starts_with_a_password_that_is_written_in_the_file():
    text = (DEPLOY / "compose.yaml").read_text()
    used = set(re.findall(r"\$\{(\w+)", text)) - {"BROADCAST_VERSION"}
    assert used == {"SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "TRUSTED_HOSTS"}
    for name in used:
        assert not re.search(rf"\$\{{{name}(?!:\?)", text), f"{name} must be refused when it is missing"
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY$|AUTH", variable):
                assert str(value).startswith("${"), (name, variable)


def test_settings_of_a_node_are_what_the_program_takes_in_production(tmp_path: Path):
    values = set_up(tmp_path, "a.example")
    environ = {name: filled_in(value, values) for name, value in SERVICES["node1"]["environment"].items()}
    settings = Settings.load({"APP_ENV": "production"} | environ)
    assert settings.trusted_hosts == ["a.example"]
    assert values["POSTGRES_PASSWORD"] in settings.database_uri


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_confined(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("cap_add", []) == (["CHOWN", "DAC_OVERRIDE"] if name == "certificate" else [])
    assert "privileged" not in service
    assert {"mem_limit", "pids_limit"} <= service.keys()
    assert "networks" in service or service["network_mode"] == "none"
    assert ("ports" in service) == (name == "nginx")
    assert not service["image"].endswith(":latest")
    assert ":" in service["image"]


def test_parts_reach_only_what_they_need():
    reached = {name: set(service.get("networks", [])) for name, service in SERVICES.items()}
    assert reached.pop("node1") == reached.pop("node2") == {"front", "database", "redis", "kafka"}
    assert reached == {
        "nginx": {"front"},
        "postgres": {"database"},
        "migrate": {"database"},
        "redis": {"redis"},
        "kafka": {"kafka"},
        "topics": {"kafka"},
        "certificate": set(),
    }
    internal = {name for name, network in COMPOSE["networks"].items() if network and network.get("internal")}
    assert internal == {"database", "redis", "kafka"}


def test_data_of_kafka_is_in_its_volume_and_its_topics_are_made():
    kafka, topics = SERVICES["kafka"], SERVICES["topics"]
    [volume] = kafka["volumes"]
    assert volume == f"kafka:{kafka['environment']['KAFKA_LOG_DIRS']}"
    assert kafka["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    words = topics["entrypoint"] + topics["command"]
    made = [topic for flag, topic in zip(words, words[1:], strict=False) if flag == "--topic"]
    assert made == Settings.model_fields["kafka_topics"].default
    for node in ("node1", "node2"):
        assert SERVICES[node]["depends_on"]["topics"] == {"condition": "service_completed_successfully"}


def test_plain_http_leads_to_the_port_that_is_published(tmp_path: Path):
    proxy = make_nginx(tmp_path / "nginx", [1, 2], certificate=make_self_signed_certificate(tmp_path / "tls"))
    text = (tmp_path / "nginx/nginx.conf").read_text()
    [plain] = re.findall(r"listen 127.0.0.1:(\d+);", text)
    proxy.start()
    try:
        request = urllib.request.Request(f"http://localhost:{plain}/inbox?view=unread", method="HEAD")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.build_opener(_Stay).open(request, timeout=10)
    finally:
        proxy.stop()
    [port] = [
        outside for outside, inside in (pair.split(":") for pair in SERVICES["nginx"]["ports"]) if inside == "8443"
    ]
    assert caught.value.headers["Location"] == f"https://localhost:{port}/inbox?view=unread"


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


# ---- Kubernetes


def test_secret_of_the_example_opens_nothing():
    [secret] = [manifest for manifest in KUBERNETES if manifest["kind"] == "Secret"]
    assert all("REPLACE-ME" in value for value in secret["stringData"].values())
    assert find_weakness(secret["stringData"]["SECRET_KEY"])


@pytest.mark.parametrize(
    "container", [*POD["initContainers"], *POD["containers"]], ids=lambda container: container["name"]
)
def test_container_is_confined(container: dict[str, Any]):
    assert POD["automountServiceAccountToken"] is False
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["securityContext"] == confined
    assert "memory" in container["resources"]["limits"]


def test_host_of_the_ingress_is_trusted_and_the_pod_itself():
    [ingress] = [manifest for manifest in KUBERNETES if manifest["kind"] == "Ingress"]
    [node] = POD["containers"]
    names = [variable["name"] for variable in node["env"]]
    assert names.index("POD_IP") < names.index("TRUSTED_HOSTS"), "only what stands before is filled in"
    hosts = node["env"][names.index("TRUSTED_HOSTS")]["value"].split(",")
    assert hosts == [*(rule["host"] for rule in ingress["spec"]["rules"]), "$(POD_IP)"]


def test_network_is_closed_but_for_what_is_named():
    policies = {m["metadata"]["name"]: m["spec"] for m in KUBERNETES if m["kind"] == "NetworkPolicy"}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert policies["broadcast"]["policyTypes"] == ["Ingress", "Egress"]
    for rule in (*policies["broadcast"]["ingress"], *policies["broadcast"]["egress"]):
        assert rule["ports"]


def test_upgrade_migrates_first_and_a_changed_setting_restarts():
    kustomization = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())
    [image] = kustomization["images"]
    assert image["newTag"] not in ("", "latest")
    assert kustomization["configMapGenerator"] == [{"name": "broadcast", "envs": ["settings.env"]}]
    assert "generatorOptions" not in kustomization, "the name changes with the content, and so the pods do"
    [migrate] = POD["initContainers"]
    assert migrate["command"] == ["flask", "--app", "app", "db", "upgrade"]
    assert migrate["image"] == POD["containers"][0]["image"] == image["name"]
    assert "replicas" not in DEPLOYMENT["spec"], "the autoscaler's number would be undone at every apply"
