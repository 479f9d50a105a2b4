"""How a candidate is made and judged: datasets, features, heads, pipelines, evaluation and the gate."""
