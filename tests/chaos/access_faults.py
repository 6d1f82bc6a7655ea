"""F33: access is taken away while everybody reconnects. Workers remember who came before, and must forget in time."""

import math
import random
import time
from concurrent.futures import ThreadPoolExecutor

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


class AccessLoad(StreamLoad):
    """A load that notes which streams open though their worker had heard that their token has no access.

    It had, if it ended another stream of that token before, or if the request was sent after `all_informed_at`.
    """

    def __init__(self, scenario: Scenario, user_tokens: list[str], stream_count: int):
        self.all_informed_at = math.inf
        self.opened_without_access: list[LoadStream] = []
        self.without_access: set[str] = set()
        self._sent_at: dict[int, float] = {}
        self._informed_at: dict[tuple[str, int], float] = {}  # by token and worker
        address = ("127.0.0.1", scenario.system.port)
        super().__init__(address, user_tokens, stream_count, cursor=None)

    def _send_request(self, stream: LoadStream) -> None:
        self._sent_at[id(stream)] = time.monotonic()
        super()._send_request(stream)

    def _handle_block(self, stream: LoadStream, block: bytes, received_at: float) -> None:
        super()._handle_block(stream, block, received_at)
        key = (stream.token, stream.worker)
        if b"event: SIGNED_OUT" in block:
            self._informed_at.setdefault(key, received_at)
        informed_at = min(self._informed_at.get(key, math.inf), self.all_informed_at)
        is_without_access = stream.token in self.without_access and self._sent_at[id(stream)] > informed_at
        if is_without_access and b"event: CONNECTED" in block:
            self.opened_without_access.append(stream)

    def wait_for_the_others(self, seq: int = 0) -> None:
        """Wait until every stream with access is current, and has received `seq`."""
        others = [stream for stream in self.streams if stream.token not in self.without_access]
        wait_for(
            lambda: all(stream.is_connected and (stream.last_seq or 0) >= seq for stream in others),
            seconds=60,
            description="everybody who has access to be current",
        )


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
        load.without_access.update(leaving)
        with ThreadPoolExecutor(1) as thread:
            revoking = thread.submit(_revoke_all, app, leaving, scenario.rng)
            while not revoking.done():
                load.disconnect_all()
                cut_count += 1
                time.sleep(scenario.rng.uniform(0, _MAX_CUT_PAUSE_SECONDS))
            revoking.result()
        load.wait_for_the_others(_publish_and_find_seq(scenario, staying[0]))
        load.all_informed_at = time.monotonic()
        seqs_before = {id(stream): stream.last_seq for stream in load.streams if stream.token in load.without_access}
        load.disconnect_all()
        load.wait_for_the_others(_publish_and_find_seq(scenario, staying[0]))
        reached = [stream for stream in load.streams if stream.last_seq != seqs_before.get(id(stream), stream.last_seq)]
        scenario.measurements |= {
            "streams": len(load.streams),
            "cuts": cut_count,
            "reconnects": len(load.disconnections),
        }
    assert not load.opened_without_access, f"{len(load.opened_without_access)} streams opened without access"
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
