"""A Kafka cluster of one broker in its own process: the mock inside librdkafka, which the confluent-kafka wheel
contains.

`python -m tests.support.kafka.mock_cluster` prints its address, then reads commands from standard input: `topic NAME
PARTITIONS`, `down`, `up`, `rtt MILLISECONDS`, each answered with `ok`; it ends with its input. It supports Kafka 2.3 at
most, keeps everything in memory, and keeps its port through `down` and `up`. Its groups are simpler than a broker's: a
member that waits to join counts as dead after its session timeout and never gets an answer; a member that syncs after
the leader is refused (error 42) and joins again, so that a group of two takes a few tries.
"""

import ctypes
import sys
from pathlib import Path

import confluent_kafka

_RD_KAFKA_PRODUCER = 0
_BROKER_ID = 1
_REBALANCE_DELAY_MS = (
    500  # a new group waits this long for more members; the default, 3 s, exceeds the session timeout of some tests
)


class MockCluster:
    def __init__(self) -> None:
        self._lib = _load_library()
        error = ctypes.create_string_buffer(512)
        conf = self._lib.rd_kafka_conf_new()
        self._handle = self._lib.rd_kafka_new(_RD_KAFKA_PRODUCER, conf, error, len(error))
        assert self._handle, error.value.decode()
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._handle, 1)
        assert self._cluster
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, _REBALANCE_DELAY_MS)

    @property
    def address(self) -> str:
        return self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def run_command(self, command: str, *args: str) -> None:
        lib, cluster = self._lib, self._cluster
        match command, *args:
            case "topic", name, partitions:
                error_code = lib.rd_kafka_mock_topic_create(cluster, name.encode(), int(partitions), 1)
            case ("down",):
                error_code = lib.rd_kafka_mock_broker_set_down(cluster, _BROKER_ID)
            case ("up",):
                error_code = lib.rd_kafka_mock_broker_set_up(cluster, _BROKER_ID)
            case "rtt", milliseconds:
                error_code = lib.rd_kafka_mock_broker_set_rtt(cluster, _BROKER_ID, int(milliseconds))
            case _:
                raise ValueError(command)
        assert not error_code, f"{command}: {error_code}"


def _load_library() -> ctypes.CDLL:
    [path] = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka*.so*")
    lib = ctypes.CDLL(str(path))
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, result, arguments in (
        ("conf_new", pointer, []),
        ("new", pointer, [number, pointer, text, ctypes.c_size_t]),
        ("mock_cluster_new", pointer, [pointer, number]),
        ("mock_cluster_bootstraps", text, [pointer]),
        ("mock_group_initial_rebalance_delay_ms", None, [pointer, ctypes.c_int32]),
        ("mock_topic_create", number, [pointer, text, number, number]),
        ("mock_broker_set_down", number, [pointer, ctypes.c_int32]),
        ("mock_broker_set_up", number, [pointer, ctypes.c_int32]),
        ("mock_broker_set_rtt", number, [pointer, ctypes.c_int32, number]),
    ):
        function = getattr(lib, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return lib


def main() -> None:
    cluster = MockCluster()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        cluster.run_command(*line.split())
        print("ok", flush=True)


if __name__ == "__main__":
    main()
