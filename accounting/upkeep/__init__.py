"""What is done to buckets again and again: put together, summed by months, computed anew."""
