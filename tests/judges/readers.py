"""Reads frames back with sseclient-py and httpx-sse. Standard input as of `read_back.mjs`; run in the judges' environment."""

import base64
import json
import sys

import httpx
import sseclient
from httpx_sse import EventSource


def by_sseclient(data: bytes) -> list[dict]:
    return [{"id": e.id, "event": e.event, "data": e.data} for e in sseclient.SSEClient(iter([data])).events()]


def by_httpx_sse(data: bytes) -> list[dict]:
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=data)
    return [{"id": e.id or None, "event": e.event, "data": e.data} for e in EventSource(response).iter_sse()]


def main() -> int:
    cases = [json.loads(line) for line in sys.stdin]
    worst = 0
    for reader in (by_sseclient, by_httpx_sse):
        wrong = 0
        for case in cases:
            got = reader(base64.b64decode(case["bytes"]))
            if got != case["want"]:
                wrong += 1
                print(f"{reader.__name__} read {got!r} instead of {case['want']!r}", file=sys.stderr)
        print(f"{reader.__name__}: {len(cases)} cases, {wrong} wrong")
        worst = max(worst, wrong)
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
