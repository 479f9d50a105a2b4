"""Real servers that tests talk to: each starts on loopback, is waited for, and ended by its own pid."""
