"""From trainings to verdicts: statistics, comparison and claims. Pure functions, but for the timing."""
