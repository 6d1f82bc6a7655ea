"""HTTP: one module per blueprint. A view does four things: who are you, parse, one action, answer.

Pages, htmx replies and the stream render the same card partial; a plain form post and a 303 always work.
"""
