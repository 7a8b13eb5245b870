"""The paper in miniature: which runs benchmarks/batch_scaling.py makes, what came of them, and how they are shown."""
