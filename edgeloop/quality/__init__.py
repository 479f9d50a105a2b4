"""What gets into the samples table, and what of it may be learned from."""
