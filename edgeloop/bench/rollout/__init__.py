"""What a rollout costs the control plane, and what a faulty one reaches, on simulated nodes."""
