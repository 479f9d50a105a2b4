"""Data sets to try edgeloop with: where they come from, and how they become a stream that drifts."""
