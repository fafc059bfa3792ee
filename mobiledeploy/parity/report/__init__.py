"""Parity reports as JSON, JUnit XML, Markdown and HTML."""
