"""Figures that anyone can repeat: `make bench`, or `make bench BENCH=short`."""
