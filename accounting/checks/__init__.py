"""Whether the ledger is what its records say, and what a figure is made of."""
