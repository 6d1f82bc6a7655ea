"""The open streams of one worker: who is connected, who gets which event, and how bytes reach clients that may be slow.

The hub and its transports depend only on the standard library, gevent and `domain`; opening a stream and the receipt
buffer also use the store.
"""
