"""The parts of `nexcage.testing.explore`: a plan from a seed, the programs that carry it out, what they promised."""
