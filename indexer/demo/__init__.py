"""A simulated farm to look at."""
