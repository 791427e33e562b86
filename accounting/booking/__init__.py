"""From a batch of records to what changes in the ledger: accounts, postings, revisions, adjustments."""
