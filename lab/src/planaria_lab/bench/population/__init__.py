"""How well networks are repaired that nobody saw before: learned from a population, measured on others."""
