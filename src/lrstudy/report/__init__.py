"""The report of a study: renders what the compare stage wrote and computes nothing new."""
