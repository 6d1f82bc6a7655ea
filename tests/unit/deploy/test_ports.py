"""Clients and servers agree across the files: ports, service names and volumes."""

import re
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.integration.deploy.test_config_files import DEPLOY, MANIFESTS

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
NGINX = (DEPLOY / "nginx.conf").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PORT = re.search(r"\bPORT=(\d+)", DOCKERFILE)[1]
KUBERNETES = {
    manifest["kind"]: manifest["spec"]
    for path in MANIFESTS
    for manifest in yaml.safe_load_all(path.read_text())
    if "spec" in manifest
}
POD = KUBERNETES["Deployment"]["template"]["spec"]


def share_a_network(one: str, other: str) -> bool:
    return bool(set(SERVICES[one]["networks"]) & set(SERVICES[other]["networks"]))


def test_ports_that_compose_publishes_are_those_that_nginx_listens_on():
    listened = re.findall(r"listen (\d+)", NGINX)
    assert sorted(pair.split(":")[1] for pair in SERVICES["nginx"]["ports"]) == sorted(listened)
    assert re.search(r"https://127\.0\.0\.1:(\d+)/readyz", SERVICES["nginx"]["healthcheck"]["test"][1])[1] in listened
    assert f"EXPOSE {PORT}\n" in DOCKERFILE


def test_nginx_leads_to_the_nodes_of_compose_at_the_port_of_the_image():
    upstream = re.findall(r"^\s+server (\w+):(\d+) ", NGINX, re.M)
    assert upstream == [("node1", PORT), ("node2", PORT)]
    for name, _ in upstream:
        assert share_a_network("nginx", name)
        assert "PORT" not in SERVICES[name]["environment"]
    assert "HOST=0.0.0.0" in DOCKERFILE, "or no other container reaches it"


def test_every_address_in_the_settings_of_a_node_is_a_service_that_listens_there():
    settings = SERVICES["node1"]["environment"]
    hidden = {name: re.sub(r"\$\{.*?\}", "secret", str(value)) for name, value in settings.items()}
    database, redis = urlsplit(hidden["DATABASE_URL"]), urlsplit(hidden["REDIS_URL"])
    assert (database.hostname, database.port) == ("postgres", 5432)
    assert (redis.hostname, redis.port) == ("redis", 6379)
    server = SERVICES["postgres"]["environment"]
    assert (database.username, database.path) == (server["POSTGRES_USER"], f"/{server['POSTGRES_DB']}")
    kafka = SERVICES["kafka"]["environment"]
    assert f"PLAINTEXT://{hidden['KAFKA_BOOTSTRAP_SERVERS']}" == kafka["KAFKA_ADVERTISED_LISTENERS"]
    assert hidden["KAFKA_BOOTSTRAP_SERVERS"] in SERVICES["topics"]["entrypoint"]
    for name in ("postgres", "redis", "kafka"):
        assert share_a_network("node1", name)
        assert not share_a_network("nginx", name)


def test_every_volume_is_declared_and_used():
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if not volume.startswith(".")
    }
    assert used == COMPOSE["volumes"].keys()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), source


def test_service_probes_and_ingress_of_kubernetes_name_the_port_of_the_image():
    [node] = POD["containers"]
    [port] = node["ports"]
    assert str(port["containerPort"]) == PORT
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert node[probe]["httpGet"]["port"] == port["name"]
        assert node[probe]["httpGet"]["path"] in ("/readyz", "/healthz")
    [served] = KUBERNETES["Service"]["ports"]
    assert served["targetPort"] == port["name"]
    [rule] = KUBERNETES["Ingress"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"]["port"]["name"] == served["name"]
    assert KUBERNETES["Service"]["selector"] == KUBERNETES["Deployment"]["selector"]["matchLabels"]
    mounted = {
        mount["name"] for container in POD["containers"] + POD["initContainers"] for mount in container["volumeMounts"]
    }
    assert mounted == {volume["name"] for volume in POD["volumes"]}
