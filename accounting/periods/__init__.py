"""Months that are closed and signed, and what changed them since."""
