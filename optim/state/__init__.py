"""The state that Lamb holds for each parameter, and how it is saved and loaded."""
