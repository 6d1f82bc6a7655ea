"""What every request needs: identity, limits, security headers, errors, rendering, request parsing."""
