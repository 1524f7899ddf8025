"""Does a long phase at a large rate generalize better? python -m lrstudy.stages.late_decay."""

from lrstudy.process.command import run_stage


def main() -> None:
    from lrstudy.recipe.config import load_params, workspace_root
    from lrstudy.theory.late_decay import experiment  # torch, which a warm process has

    experiment(load_params(), workspace_root())


if __name__ == "__main__":
    run_stage(main, warm="start")
