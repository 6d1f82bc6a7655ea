"""What every page and every answer needs: identity, limits, security headers, errors, rendering, request parsing."""
