"""Releases as OCI images, made without any engine; layers are deterministic: what did not change keeps its digest."""
