"""A written model -> its proof: references, batch probe, comparison, report."""
