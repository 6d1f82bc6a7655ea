"""Sign-in and sign-out: passwords, OpenID Connect, reverse proxies, initial setup, the user's own account."""
