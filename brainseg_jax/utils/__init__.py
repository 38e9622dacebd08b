"""Helpers for files, Markdown, provenance, sharding and XLA."""
