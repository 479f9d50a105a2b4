"""What runs here: from the signed channel to a model that answers, and back to the last good one."""
