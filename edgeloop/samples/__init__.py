"""What a sample is: records, capture segments, the samples table, dataset versions and splits."""
