"""Whether the ledger is what its records say."""
