"""One training job: its specification, its data, its loop, and what it says of itself."""
