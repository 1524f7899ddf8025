"""Are level sets of the loss connected, does modulation help? python -m lrstudy.stages.level_sets."""

from lrstudy.process.command import run_stage


def main() -> None:
    from lrstudy.recipe.config import load_params, workspace_root
    from lrstudy.theory.level_sets import experiment  # torch, which a warm process has

    experiment(load_params(), workspace_root())


if __name__ == "__main__":
    run_stage(main, warm="start")
