"""What a run tells of itself: its text, its steps and where their time goes, and how it ended."""
