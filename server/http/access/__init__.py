"""Who gets in, and what they may do: everything that a request passes before it reaches a route."""
