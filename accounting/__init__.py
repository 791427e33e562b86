"""Who used what, to the last second, for years: a ledger of exact buckets, and the questions that it answers."""
