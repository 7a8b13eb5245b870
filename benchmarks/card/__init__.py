"""Training on one GPU: the path of a run walked, and its speed beside that of plain loops (scripts/gpu-train)."""
