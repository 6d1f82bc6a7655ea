"""Apache Kafka itself, one node, from the jars of Maven Central (`pom.xml` here), on loopback, in its own folder.

    python -m tests.support.kafka.server                        until Ctrl-C; prints its address
    python -m tests.support.kafka.server --port 9092 -- COMMAND  runs the command with KAFKA_BOOTSTRAP_SERVERS set, and
    ends with it

Needs Java 17 or newer, and Maven the first time. Exit code 3, with the reason, if it cannot run here.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.ports import find_free_port

KAFKA_DIR = Path(__file__).resolve().parent
JARS_DIR = KAFKA_DIR.parents[2] / ".kafka"
EXIT_UNAVAILABLE = 3
_MAVEN_TIMEOUT_SECONDS = 300
_START_TIMEOUT_SECONDS = 60
_CLUSTER_ID = "YnJvYWRjYXN0LXRlc3RzLTE"  # any 16 bytes in base64
_TOPICS = [name for name in os.environ.get("KAFKA_TOPICS", "").split(",") if name] or ["broadcast.events.v1"]
USER, PASSWORD = "broadcast", "right"  # for the SASL/PLAIN listener (without TLS)
_PROPERTIES_TEMPLATE = """
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},ASKING://127.0.0.1:{asking},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},ASKING://127.0.0.1:{asking}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,ASKING:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
listener.name.asking.sasl.enabled.mechanisms=PLAIN
listener.name.asking.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
    user_{user}="{password}";
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
log.dirs={folder}/data
num.partitions=3
auto.create.topics.enable=false
message.max.bytes=8000000
offsets.topic.num.partitions=3
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""


class KafkaUnavailable(Exception):
    """This machine cannot run Kafka; the message says what is missing."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tests.support.kafka.server", description="Run Apache Kafka for tests and trials."
    )
    parser.add_argument("--port", type=int, default=0, help="a free one by default")
    parser.add_argument("--asking-port", type=int, default=0, help=f"of a listener that asks {USER} for a password")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        fetch_jars()
        with tempfile.TemporaryDirectory(prefix="kafka-") as folder:
            port, sasl_port = options.port or find_free_port(), options.asking_port or find_free_port()
            return _run_broker(Path(folder), port, sasl_port, options.command)
    except KafkaUnavailable as error:
        print(f"Kafka cannot run here: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except KeyboardInterrupt:
        return 0


def fetch_jars() -> None:
    """Fetch Kafka's jars into JARS_DIR unless present. Raises KafkaUnavailable without Java, or if fetching fails."""
    if not shutil.which("java"):
        raise KafkaUnavailable("there is no java; install a Java 17 runtime.")
    if any(JARS_DIR.glob("kafka-server-4*.jar")):
        return
    if not shutil.which("mvn"):
        raise KafkaUnavailable("there is no mvn to fetch it with; install Maven.")
    print("Fetching Apache Kafka from Maven Central …", file=sys.stderr, flush=True)
    download_dir = JARS_DIR.with_name(".kafka-new")
    command = [
        "mvn",
        "-q",
        "-B",
        "-f",
        KAFKA_DIR / "pom.xml",
        "dependency:copy-dependencies",
        f"-DoutputDirectory={download_dir}",
    ]
    try:
        subprocess.run(command, check=True, timeout=_MAVEN_TIMEOUT_SECONDS, stdout=sys.stderr)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise KafkaUnavailable("Maven could not fetch it; is there a network?") from None
    shutil.rmtree(JARS_DIR, ignore_errors=True)
    download_dir.rename(JARS_DIR)


def _run_broker(folder: Path, port: int, sasl_port: int, command: list[str]) -> int:
    properties = folder / "server.properties"
    substitutions = {"user": USER, "password": PASSWORD, "folder": folder}
    properties.write_text(
        _PROPERTIES_TEMPLATE.format(port=port, asking=sasl_port, controller=find_free_port(), **substitutions)
    )
    output = folder / "output.txt"
    with output.open("wb") as log:
        format_command = [
            *build_java_command(),
            "kafka.tools.StorageTool",
            "format",
            "-t",
            _CLUSTER_ID,
            "-c",
            str(properties),
        ]
        subprocess.run(format_command, check=True, stdout=log, stderr=log)
        start_command = [*build_java_command(), "kafka.Kafka", str(properties)]
        server = subprocess.Popen(
            start_command, stdout=log, stderr=log, start_new_session=True
        )  # Ctrl-C is for the command
        try:
            _wait_until_ready(server, port, output)
            address = f"127.0.0.1:{port}"
            print(f"Kafka: {address}", flush=True)
            if not command:
                return server.wait()
            return _wait_for_child(subprocess.Popen(command, env=os.environ | {"KAFKA_BOOTSTRAP_SERVERS": address}))
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for_child(child: subprocess.Popen) -> int:
    """Return the child's exit code. Ctrl-C reaches the child too, so wait until it has ended."""
    try:
        return child.wait()
    except KeyboardInterrupt:
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def build_java_command() -> list[str]:
    """Return the command that runs a class of Kafka's jars, without the class."""
    log_level_option = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", log_level_option, "-cp", f"{JARS_DIR}/*"]


def _wait_until_ready(server: subprocess.Popen, port: int, output: Path) -> None:
    """Wait until it accepts requests and has the topics that the bridge reads."""
    from kafka.admin import KafkaAdminClient, NewTopic
    from kafka.errors import KafkaError

    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while True:
        if server.poll() is not None or time.monotonic() > deadline:
            raise KafkaUnavailable(f"it did not start:\n{output.read_text(errors='replace')[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}", api_version=(2, 3), request_timeout_ms=5000)
            try:
                admin.create_topics(
                    [NewTopic(name.strip(), num_partitions=3, replication_factor=1) for name in _TOPICS]
                )
            finally:
                admin.close()
            return
        except (OSError, KafkaError):
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
