"""Reads frames with sseclient-py and httpx-sse. Standard input as for `read_frames.mjs`; runs in `.venv-judges`."""

import base64
import json
import sys

import httpx
import sseclient
from httpx_sse import EventSource


def read_with_sseclient(data: bytes) -> list[dict]:
    return [{"id": e.id, "event": e.event, "data": e.data} for e in sseclient.SSEClient(iter([data])).events()]


def read_with_httpx_sse(data: bytes) -> list[dict]:
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=data)
    return [{"id": e.id or None, "event": e.event, "data": e.data} for e in EventSource(response).iter_sse()]


def main() -> int:
    cases = [json.loads(line) for line in sys.stdin]
    max_wrong_count = 0
    for reader in (read_with_sseclient, read_with_httpx_sse):
        wrong_count = 0
        for case in cases:
            frames = reader(base64.b64decode(case["bytes"]))
            if frames != case["want"]:
                wrong_count += 1
                print(f"{reader.__name__} read {frames!r} instead of {case['want']!r}", file=sys.stderr)
        print(f"{reader.__name__}: {len(cases)} cases, {wrong_count} wrong")
        max_wrong_count = max(max_wrong_count, wrong_count)
    return 1 if max_wrong_count else 0


if __name__ == "__main__":
    sys.exit(main())
