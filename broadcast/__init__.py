"""A broadcast messaging system: a message is written once and shown on every screen of its audience, and on no other.

`docs/architecture.md` describes each package and follows one message through all of them.
"""
