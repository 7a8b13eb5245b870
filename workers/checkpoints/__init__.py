"""Checkpoints: written, found, loaded and removed."""
