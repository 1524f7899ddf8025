"""One short script per stage of dvc.yaml: load, call, write."""

import argparse
import sys


def cell_arguments() -> tuple[str, str]:
    """The stage's command line: MODEL SCHEDULE."""
    parser = argparse.ArgumentParser(prog=f"python -m {sys.argv[0]}")
    parser.add_argument("model", help="a model of params.yaml")
    parser.add_argument("schedule", help="a schedule row of params.yaml")
    arguments = parser.parse_args()
    return arguments.model, arguments.schedule
