"""What a figure, or a record, is made of: from a sum to buckets, records, messages and producers."""
