"""What a node is measured against, each as a process of its own so that no side pays for the other's work."""
