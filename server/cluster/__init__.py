"""Clusters that run jobs."""
