"""The commands, thin: they read arguments, call the library, and print."""
