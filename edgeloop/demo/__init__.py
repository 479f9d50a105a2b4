"""The loop on one machine, so that a person sees in minutes what edgeloop does and what it refuses to do."""
