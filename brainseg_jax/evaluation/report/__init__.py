"""Writes the report of a scored run as one HTML page: `scripts/report.py`."""
