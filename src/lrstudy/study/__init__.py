"""A study's trainings: what they are, what the stages write of them, and what the ledger has."""
