"""The whole loop on one machine: what ``edgeloop up`` starts, watches, and takes down again."""
