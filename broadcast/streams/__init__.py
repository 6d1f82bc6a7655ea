"""The open streams of one worker: who is connected, who gets which event, and how bytes reach a client that may be slow.

The hub and its transports know the standard library, gevent and `domain`; opening a stream and the receipt buffer also
know the store.
"""
