"""``edgeloop bench delivery``: bytes that travel to a node, beside images and deltas of them."""
