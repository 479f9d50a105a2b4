"""The digital twin: a release answers recent traffic on a confined node before any ring sees it."""
