"""Which node should run what, and how it gets there: channel, reports and the rollout state machine."""
