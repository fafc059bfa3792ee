"""Parity reports: JSON, JUnit, Markdown, HTML."""
