"""The folder of a run: its files, who writes them, and how an attempt begins on it."""
