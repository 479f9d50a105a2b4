"""The rollout state machine: pure decisions, state in SQL, one idempotent tick."""
