"""Say what an artifact holds, whoever made it, without running it."""
