"""A graph that runs -> one that computes the same with less; offline, and proven like the other."""
