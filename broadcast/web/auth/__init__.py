"""Signing in and out: passwords, OpenID Connect, reverse proxies, the first administrator, one's own account."""
