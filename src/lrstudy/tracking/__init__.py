"""Journals of runs, and MLflow, which gets them."""
