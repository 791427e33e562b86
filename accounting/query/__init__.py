"""From a question to exact figures: which buckets, which records, for whose eyes."""
