"""The ledger's tables through the years: made, changed with the kinds, and refused where figures would change."""
