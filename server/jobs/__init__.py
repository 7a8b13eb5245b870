"""What a job is and what is decided about it; no input or output."""
