"""One training: the loop, its batches and evaluation, where it runs, and what it leaves."""
