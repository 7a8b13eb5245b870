"""The training loop, and what it does before, at and after a step."""
