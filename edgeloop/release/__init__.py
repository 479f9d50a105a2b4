"""From an approved model version to a release that nodes can verify and run."""
