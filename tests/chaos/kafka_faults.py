"""Faults of what comes in by Kafka: batches that cannot be read among batches of every codec, and brokers set up wrongly."""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from confluent_kafka import Producer

from broadcast.config.settings import Settings
from tests.acts import a_message
from tests.chaos.faults import fault, workers_begin
from tests.chaos.kafka import PARTITIONS, TOPIC
from tests.chaos.readiness import Trouble
from tests.chaos.world import World
from tests.ingest.batches import a_batch, a_bomb
from tests.ingest.test_brokers import a_web_server, answering
from tests.kafka.server import PASSWORD, USER
from tests.system import wait_for

_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
_PER_BATCH = 5


@fault("F28", "Kafka: batches of every codec among poison", needs="kafka")
def poison_among_codecs(world: World, scale: float) -> None:
    """Each event is published once; each poison is a dead letter; nothing is said to be wrong."""
    brokers, keys, letters = world.place.kafka.brokers, [], _dead_letters(world)
    options = {"bootstrap.servers": brokers.address, "log_level": 2}
    producers = {codec: Producer(options | {"compression.type": codec}) for codec in _CODECS}
    rounds = max(2, int(20 * scale))
    poison = 0
    for _ in range(rounds):
        for codec, producer in producers.items():
            new = [_announce(world) for _ in range(_PER_BATCH)]
            for key in new:
                producer.produce(TOPIC, json.dumps(a_message(title=key, content=codec)).encode(), partition=0)
            assert producer.flush(30) == 0
            keys += new
            brokers.send(TOPIC, [b"{nope", b"\xff\xfe"], partition=0)
            poison += 2
        if brokers.is_mock:  # Apache Kafka itself refuses these of a producer
            brokers.send_batch(TOPIC, 0, a_batch([b"a", b"b"])[:-1] + b"!")
            brokers.send_batch(TOPIC, 0, a_batch([b"x"], codec=1, compress=lambda _: a_bomb(300)))
            brokers.send_batch(TOPIC, 0, a_batch([b"x"], codec=7))
            poison += 3
    _expect_published(world, keys)
    wait_for(lambda: _dead_letters(world) - letters == poison, seconds=20, what=f"{poison} dead letters")
    world.figures |= {"events": len(keys), "dead letters": poison, "Apache Kafka": not brokers.is_mock}


@fault("F29", "Kafka: no topic, no broker, wrong password", needs="kafka")
def brokers_set_up_wrongly(world: World, scale: float) -> None:
    """The reason is in every answer of every worker for as long as it lasts, and events come in as soon as it is mended."""
    brokers, missing = world.place.kafka.brokers, f"test.missing-{world.seed}"
    with set_up_wrongly(world, scale, f"no topic {missing}", KAFKA_TOPICS=missing) as trouble:
        brokers.topic(missing, partitions=PARTITIONS)
        trouble.until = time.monotonic()
        _expect_one_through(world, missing)
    with (
        answering(a_web_server) as address,
        set_up_wrongly(world, scale, "no Kafka broker", KAFKA_BOOTSTRAP_SERVERS=address),
    ):
        pass
    asking = {"KAFKA_BOOTSTRAP_SERVERS": world.place.kafka.asking, "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}
    sign_in = asking | {"KAFKA_SASL_USERNAME": USER, "KAFKA_SASL_PASSWORD": "wrong"}
    with set_up_wrongly(world, scale, "KAFKA_SASL_PASSWORD", **sign_in):
        pass
    if not brokers.is_mock:
        with set_up(world, **sign_in | {"KAFKA_SASL_PASSWORD": PASSWORD}):
            _expect_one_through(world, TOPIC)
    _expect_one_through(world, TOPIC)
    world.figures["Apache Kafka"] = not brokers.is_mock


@contextmanager
def set_up_wrongly(world: World, scale: float, words: str, **settings: str) -> Iterator[Trouble]:
    """Restart with these settings, and wait until it must have said for a while what is wrong with them."""
    readiness = world.readiness
    with readiness.may_name("kafka"), set_up(world, **settings), _broken(world, words) as trouble:
        readiness.wait_until_named(trouble)
        time.sleep(10 * scale)
        yield trouble


def _broken(world: World, words: str) -> AbstractContextManager[Trouble]:
    """The reason is known once a worker has tried for as long as a request may take, and a little more."""
    return world.readiness.names("kafka", words=words, within=2 * Settings().kafka_request_timeout_ms / 1000)


@contextmanager
def set_up(world: World, **settings: str) -> Iterator[None]:
    """Restart with other settings; and at the end with those of before."""
    before = dict(world.system.environ)
    _restart(world, before | settings)
    try:
        yield
    finally:
        _restart(world, before)


def _restart(world: World, environ: dict[str, str]) -> None:
    world.system.stop()
    world.system.environ = environ
    with workers_begin(world):
        world.system.start()


def _expect_one_through(world: World, topic: str) -> None:
    key = _announce(world)
    world.place.kafka.brokers.send(topic, [a_message(title=key)])
    _expect_published(world, [key])


def _announce(world: World) -> str:
    """The title of an event that is about to be sent; whether it will be published is not known yet."""
    key = world.new_key()
    world.history.note(
        "publish", key=key, audience={"kind": "everyone"}, began=time.monotonic(), result="info", id=None
    )
    return key


def _expect_published(world: World, keys: list[str]) -> None:
    """From here on they are as if each had been answered ok."""

    def published() -> dict[str, int] | None:
        found = {title: id for _, id, title in world.rows() if title in keys}
        return found if len(found) == len(set(keys)) else None

    ids = wait_for(published, seconds=60, what=f"{len(keys)} events to be published")
    for key in keys:
        world.history.note(
            "publish", key=key, audience={"kind": "everyone"}, began=time.monotonic(), result="ok", id=ids[key]
        )


def _dead_letters(world: World) -> int:
    """How many wait."""
    counted, after = 0, ""
    while after is not None:
        page = world.ask("GET", f"/api/admin/dlt?limit=200&status=WAITING{after}", world.place.admin).body
        counted += len(page["items"])
        after = page["next"] and f"&after={page['next']}"
    return counted
