"""Which inputs are worth sending, and with what probability each was chosen."""
