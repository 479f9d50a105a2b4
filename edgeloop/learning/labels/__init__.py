"""Labels by people: which samples to ask about, what was answered, and how far answers can be believed."""
