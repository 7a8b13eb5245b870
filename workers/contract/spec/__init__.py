"""The job specification, a file for each section."""
