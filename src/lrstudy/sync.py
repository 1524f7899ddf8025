"""Send to MLflow what waits in the journals: python -m lrstudy.sync (``make sync``)."""

from functools import partial
from pathlib import Path

from lrstudy.errors import StudyError
from lrstudy.recipe.config import workspace_root
from lrstudy.study.journals import is_orphan
from lrstudy.tracking.journal import Journal
from lrstudy.tracking.store import Store, deleted_note, describe, send, server_name, tracking_uri


def journal_folders(root: Path) -> list[Path]:
    """The folders of all journals under ``root``'s checkpoints, runs without a parent first."""
    folders = sorted(path.parent for path in (root / "checkpoints").rglob("journal.jsonl"))
    begun = {folder: events[0] for folder in folders if (events := Journal(folder, "").events())}
    return sorted(begun, key=lambda folder: begun[folder].get("parent") is not None)


def main() -> None:
    """Send every journal of the workspace and say how much was sent.

    Runs whose stage was killed, with nothing left to end them, end as KILLED. When the stage runs again, it
    goes on with them.

    Raises:
        StudyError: MLflow cannot be reached or refuses what it is sent.
    """
    root = workspace_root()
    folders, uri = journal_folders(root), tracking_uri(root)
    if not folders:
        print(f"sync: no journals in {root / 'checkpoints'}")
        return
    sent: list[Path] = []
    killed = 0
    folder = folders[0]
    try:
        store = Store(uri, root)
        for folder in folders:
            [(key, run_id)] = send(folder, store, partial(sent.append, folder)).items()
            journal = Journal(folder, key)
            if run_id in store.deleted or not is_orphan(journal):
                continue
            if store.client.get_run(run_id).info.status == "RUNNING":
                journal.end("KILLED")
                send(folder, store, partial(sent.append, folder))
                killed += 1
    except StudyError:
        raise
    except Exception as error:  # whatever a server or a database may do
        raise StudyError(
            f"sync: MLflow at {server_name(uri)} did not take {folder} ({describe(error, uri)}). {len(sent)} "
            "events were sent, the others wait in their journals; start the server or set "
            "MLFLOW_TRACKING_URI, then `make sync` again."
        ) from None
    runs = len(set(sent))
    print(
        f"sync: {len(sent)} events of {runs} runs sent to MLflow at {server_name(uri)}; "
        f"{len(folders) - runs} runs had nothing new"
    )
    if killed:
        print(
            f"sync: {killed} runs of stages that are gone were ended as KILLED; `dvc repro` goes on with them"
        )
    if store.deleted:
        print(f"sync: {deleted_note(store.deleted)}")


if __name__ == "__main__":
    from lrstudy.process.command import run_stage

    run_stage(main)
