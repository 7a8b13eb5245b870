"""BERT, and how it is sharded over the workers."""
