"""The search of a cell: its trials, what they found, and what a wrong value costs."""
