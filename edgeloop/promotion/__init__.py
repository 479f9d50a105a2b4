"""The way from an alias in MLflow to a rollout: who approved what, and what waits for whom."""
