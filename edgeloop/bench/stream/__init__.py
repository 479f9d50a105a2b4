"""The stream benchmark: every policy of learning on the same buckets, labels, learner and gate, in one run."""
