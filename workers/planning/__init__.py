"""Arithmetic on the contract, for the server and the workers alike. It loads neither torch nor Ray."""
