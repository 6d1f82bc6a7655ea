"""A broadcast messaging system: composed once, shown on every screen of its audience, and on no other.

`docs/architecture.md` says what each room is for and follows one message through all of them.
"""
