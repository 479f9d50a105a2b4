"""Where a ring's releases go: nodes that follow the channel, DaemonSets on KubeEdge, or InferenceServices."""
