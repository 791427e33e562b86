"""Old records as Parquet files; their ids and totals stay in the ledger."""
