"""Compare two artifacts and explain how and why they differ."""
