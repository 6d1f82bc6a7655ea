"""HTTP: one module per blueprint. A view authenticates, parses the request, calls one action and responds.

Pages, htmx responses and the stream render the same card partial. A plain form post with a 303 always works.
"""
