"""What is happening now and lately: stores, queries, retention."""
