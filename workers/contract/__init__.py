"""What server and workers both rely on, written once. It loads neither torch nor Ray."""
