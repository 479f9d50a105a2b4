"""Samples and labels between the answer and the store: durable, bounded, sent once."""
