"""F33: access is taken away while everybody reconnects. Workers remember who came before, and must forget in time."""

import math
import random
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flask import Flask

from broadcast.actions import tokens, users
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.factory import create_app
from broadcast.store import credentials
from broadcast.store.database import db
from tests.chaos.faults import register_fault
from tests.chaos.scenario import Scenario
from tests.support.stream_load import LoadStream, StreamLoad
from tests.support.system import wait_for

_STREAMS, _USERS = 2000, 200
_MAX_PAUSE_SECONDS = 0.1  # between two revocations
_MAX_CUT_PAUSE_SECONDS = 1.0  # between two cuts: a part of the streams is back


@dataclass
class Access:
    """What the streams of one token saw at one worker: when it was first told SIGNED_OUT, and requests sent later."""

    signed_out_at: float | None = None
    opened_after: list[float] = field(default_factory=list)


class AccessLoad(StreamLoad):
    """A load that notes which streams open after their worker has ended another stream of the same token."""

    def __init__(self, scenario: Scenario, user_tokens: list[str], stream_count: int):
        self.access: defaultdict[tuple[str, int], Access] = defaultdict(Access)
        self._sent_at: dict[int, float] = {}
        address = ("127.0.0.1", scenario.system.port)
        super().__init__(address, user_tokens, stream_count, cursor=None)

    def _send_request(self, stream: LoadStream) -> None:
        self._sent_at[id(stream)] = time.monotonic()
        super()._send_request(stream)

    def _handle_block(self, stream: LoadStream, block: bytes, received_at: float) -> None:
        super()._handle_block(stream, block, received_at)
        access = self.access[stream.token, stream.worker]
        if b"event: SIGNED_OUT" in block and access.signed_out_at is None:
            access.signed_out_at = received_at
        elif b"event: CONNECTED" in block and self._sent_at[id(stream)] > (access.signed_out_at or math.inf):
            access.opened_after.append(received_at)


def _disable_user(token: str) -> None:
    credential = credentials.find_by_api_token(tokens.hash_token(token))
    users.disable_user(credential.user_id, by=SYSTEM, now=clock.now())


def _revoke_token(token: str) -> None:
    credential = credentials.find_by_api_token(tokens.hash_token(token))
    tokens.revoke_token(credential.id, by=SYSTEM, now=clock.now())


@register_fault("F33", "access taken away while thousands reconnect")
def revoke_while_streams_reconnect(scenario: Scenario, scale: float) -> None:
    """No stream of theirs opens at a worker that has heard of it; nothing sent afterwards reaches them; all others
    return.
    """
    user_count = max(20, int(_USERS * scale))
    user_tokens = scenario.system.create_recipients(user_count)
    leaving, staying = user_tokens[: user_count // 2], user_tokens[user_count // 2 :]
    cut_count = 0
    app = create_app(Settings.load(scenario.system.build_command_environ()))
    with AccessLoad(scenario, user_tokens, max(200, int(_STREAMS * scale))) as load:
        load.wait_until_connected(seconds=60)
        load.disconnect_all()
        load.wait_until_connected(seconds=60)  # from memory
        with ThreadPoolExecutor(1) as thread:
            revoking = thread.submit(_revoke_all, app, leaving, scenario.rng)
            while not revoking.done():
                load.disconnect_all()
                cut_count += 1
                time.sleep(scenario.rng.uniform(0, _MAX_CUT_PAUSE_SECONDS))
            revoking.result()
        gone = set(leaving)
        wait_for(
            lambda: not any(stream.is_connected for stream in load.streams if stream.token in gone),
            seconds=30,
            description="every stream without access to end",
        )
        seqs_before = {id(stream): stream.last_seq for stream in load.streams if stream.token in gone}
        wait_for(
            lambda: all(stream.is_connected for stream in load.streams if stream.token not in gone),
            seconds=60,
            description="everybody else to return",
        )
        message_seq = _publish_and_find_seq(scenario, staying[0])
        wait_for(
            lambda: all((stream.last_seq or 0) >= message_seq for stream in load.streams if stream.token not in gone),
            seconds=30,
            description="the last message to reach everybody else",
        )
        reached = [s for s in load.streams if s.token in gone and s.last_seq != seqs_before[id(s)]]
        late = [access for access in load.access.values() if access.opened_after]
        scenario.measurements |= {
            "streams": len(load.streams),
            "reconnects": len(load.disconnections),
            "cuts": cut_count,
        }
    assert not late, f"{len(late)} times a stream opened at a worker that had ended that token's streams"
    assert not reached, f"{len(reached)} streams without access got something"


def _revoke_all(app: Flask, user_tokens: list[str], rng: random.Random) -> None:
    with app.app_context():
        for token in user_tokens:
            time.sleep(rng.uniform(0, _MAX_PAUSE_SECONDS))
            rng.choice((_disable_user, _revoke_token))(token)
        db.engine.dispose()


def _publish_and_find_seq(scenario: Scenario, token: str) -> int:
    scenario.publish({"kind": "everyone"})
    status, listed = scenario.system.call("GET", "/api/user/messages?limit=1", token=token)
    assert status == 200, listed
    return int(listed["cursor"].rpartition("-")[2])
