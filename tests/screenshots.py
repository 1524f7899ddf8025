"""Take pictures of what lies in this folder: python tests/screenshots.py (``make screenshots``).

docs/images/report.png is the first screen of reports/report.html, docs/images/mlflow.png the chart view of one
model's cells in MLflow's UI, served on loopback from mlflow.db.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from browser import CHROMIUM, page

IMAGES = Path("docs/images")


@contextlib.contextmanager
def mlflow_ui(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of ``mlflow ui``, as `make ui` starts it, on loopback over ``folder``'s database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--host", "127.0.0.1", "--port", port,
         "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"],
        cwd=folder, env=environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        assert any("Uvicorn running on" in line for line in server.stdout), "mlflow ui ended"
        # What it goes on to say must not fill the pipe.
        threading.Thread(target=lambda: [None for _ in server.stdout], daemon=True).start()
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def runs_address(ui: str, experiment: str, words: str) -> str:
    """The page of MLflow's UI with the runs that the filter ``words`` finds."""
    return f"{ui}/#/experiments/{experiment}/runs?searchFilter={quote(words)}"


def main() -> None:
    if not CHROMIUM:
        sys.exit("error: screenshots need chromium (Debian: apt-get install chromium).")
    for needed, made_by in (("reports/report.html", "dvc repro"), ("mlflow.db", "dvc repro")):
        if not Path(needed).exists():
            sys.exit(f"error: {needed}: not found; `{made_by}` makes it.")
    from mlflow import MlflowClient

    experiment = MlflowClient("sqlite:///mlflow.db").get_experiment_by_name("lrstudy").experiment_id
    with page(width=1280, height=860) as (opened, _):
        opened.goto(Path("reports/report.html").resolve().as_uri())
        opened.screenshot(path=IMAGES / "report.png")
    # Charts are drawn when they come into view: all of these must fit.
    with mlflow_ui(Path.cwd(), dict(os.environ)) as ui, page(width=1500, height=1000) as (opened, _):
        words = 'tags.kind = "cell" and tags.model = "lstm"'
        opened.goto(f"{runs_address(ui, experiment, words)}&compareRunsMode=CHART")
        opened.get_by_placeholder("Search metric charts").fill("^(validation/loss|lr)$")
        opened.get_by_text("(validation/loss)").first.wait_for()
        opened.get_by_text("(lr)").first.wait_for()
        opened.locator("path.js-line").first.wait_for(state="attached")
        opened.screenshot(path=IMAGES / "mlflow.png")


if __name__ == "__main__":
    main()
