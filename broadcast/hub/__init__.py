"""The open streams of one worker: who is connected, who gets which event, and how bytes reach a client that may be slow.

Standard library and gevent only; `domain` is the one room it knows. No Flask, no database, no Redis.
"""
