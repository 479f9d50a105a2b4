"""Benchmarks that anyone can run: both sides in one run, medians, ratios."""
