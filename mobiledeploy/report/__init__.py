"""What the ladder found, for people and machines: JSON, JUnit, Markdown, HTML."""
