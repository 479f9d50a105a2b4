"""What a retrain costs: from labelled samples in the tables to a candidate in the registry, stage by stage."""
