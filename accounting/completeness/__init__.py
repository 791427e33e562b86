"""What came of whom, and what was to be expected."""
