"""What is asked of graphs and done in them; the rewrites of `surgery` are made of it."""
