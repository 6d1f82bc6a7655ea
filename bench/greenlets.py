"""For comparison, the usual way to stream from Flask: a generator, a greenlet and a queue per client."""

import queue

from flask import Flask, Response, request

app = Flask(__name__)
_queues: list[queue.Queue] = []


@app.get("/ready")
def ready():
    return "ok"


@app.get("/stream")
def stream():
    client_queue: queue.Queue = queue.Queue(1000)
    _queues.append(client_queue)

    def body():
        yield "event: CONNECTED\ndata: {}\n\n"
        while True:
            yield client_queue.get()

    return Response(body(), mimetype="text/event-stream")


@app.post("/publish")
def publish():
    frame = f"event: MESSAGE\ndata: {request.get_data(as_text=True)}\n\n"
    for client_queue in _queues:
        client_queue.put(frame)
    return "ok"
