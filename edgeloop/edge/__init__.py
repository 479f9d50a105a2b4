"""The node: answers devices, keeps what is worth learning from, and follows its ring's releases."""
