"""Faults for one node, in the order that a seed gives, and what must hold whatever they do."""
