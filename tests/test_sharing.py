"""Trainings that begin alike are trained once, and come to what they would have come to alone, bit for bit."""

import errno
import gzip
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lrstudy.ledger import Ledger
from lrstudy.ledger.record import OF_THE_CLOCK, Record
from lrstudy.study.runs import kept_for_others, train_run
from lrstudy.study.sharing import Sharing, common, derived, trunk_of
from lrstudy.training.prefix import agreeing_epochs, multipliers
from tiny_data import settings, task, write_dataset

ORDERS = st.integers(0, 2**32).map(random.Random)
STATIC = {"function": "static", "parameters": {}}
MONITOR = {"name": "validation_monitor", "patience": 0, "factor": 0.5}


def step(first_drop: float, gamma: float = 0.1) -> dict:
    return {"function": "step", "parameters": {"first_drop": first_drop, "interval": 0.5, "gamma": gamma}}


def late_decay(start: float) -> dict:
    return {"function": "late_decay", "parameters": {"start": start}}


ROWS = {
    "static": {"schedule": STATIC},
    "step at 1/2": {"schedule": step(0.5)},
    "step at 3/4": {"schedule": step(0.75)},
    "late decay from 1/2": {"schedule": late_decay(0.5)},
    "late decay from 3/4": {"schedule": late_decay(0.75)},
    "cosine": {"schedule": {"function": "cosine", "parameters": {"min_factor": 0.0}}},
    "monitored": {"schedule": STATIC, "controller": MONITOR},
    "monitored, never": {"schedule": STATIC, "controller": MONITOR | {"patience": 3}},
    "monitored by accuracy": {"schedule": STATIC, "controller": MONITOR | {"watch": "accuracy"}},
    "step at 1/2, monitored": {"schedule": step(0.5), "controller": MONITOR},
    "of the loss": {"schedule": STATIC, "controller": {"name": "loss_decay"}},
}


def chosen(row: str, **changes) -> dict:
    found = settings("lstm", num_epochs=4, optimizer={"name": "adamw", "base_lr": 0.05})
    for name, value in (ROWS[row] | changes).items():
        found[name] = found[name] | value if name == "schedule" else value
    return found


def tasks_of(root: Path, data: Path, rows, **changes) -> dict[str, dict]:
    found = {}
    for row in rows:
        one = task(root, data, chosen(row, **changes), label=row)
        found[row] = one | {"folder": str(root / "checkpoints" / one["key"][:16])}
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset("text", tmp_path_factory.mktemp("sharing") / "imdb")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data) -> dict[str, Record]:
    """Each row trained by itself."""
    import torch

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("alone")
    found = {}
    for row, one in tasks_of(root, data, ROWS).items():
        train_run(one)
        found[row] = Ledger(one["ledger"]).find(one["key"])
    return found


def numbers(record: Record) -> dict:
    """All of a record that is a result: not when and where it took place, and what it shared."""
    content = record.model_dump(exclude={"origin", "shared", "format", "labels"})
    content["history"] = {
        name: series for name, series in content["history"].items() if name not in OF_THE_CLOCK
    }
    return content


def train_together(tasks: dict[str, dict], order: random.Random) -> tuple[dict[str, Record], list[str]]:
    """As the engine does with one worker: what begins when; those that wait are asked again when one has ended."""
    sharing, found, begun = Sharing(), {}, []
    by_key = {one["key"]: row for row, one in tasks.items()}
    for one in tasks.values():
        sharing.add(one)
    waiting = list(tasks)
    order.shuffle(waiting)
    running: list[str] = []
    while waiting or running:
        while waiting and len(running) < 3:
            row = waiting.pop()
            along = sharing.begin(tasks[row])
            if along is not None:
                tasks[row] = tasks[row] | along
                running.append(row)
                begun.append(row)
        row = running.pop(order.randrange(len(running)))
        train_run(tasks[row])
        found[row] = Ledger(tasks[row]["ledger"]).find(tasks[row]["key"])
        sharing.know(tasks[row], found[row])
        waiting += [by_key[key] for key in sharing.end(tasks[row])]
    sharing.close()
    assert not any(kept_for_others(Path(one["folder"])) for one in tasks.values())
    return found, begun


@pytest.mark.parametrize("seed", range(6))
def test_what_is_shared_comes_to_the_same_bits_in_whatever_order(tmp_path, data, alone, seed, one_thread):
    together, begun = train_together(tasks_of(tmp_path, data, ROWS), random.Random(seed))
    assert sorted(begun) == sorted(ROWS)
    assert {row: numbers(record) for row, record in together.items()} == {
        row: numbers(record) for row, record in alone.items()
    }
    for row, record in together.items():
        files = (tmp_path / "checkpoints" / record.identity[:16]).glob("*.safetensors")
        assert sorted(path.stem for path in files) == sorted(record.weights)
        assert (record.shared is None) <= (record.format == 1)
        if row in ("cosine", "of the loss"):
            assert record.shared is None
    trained = sum(len(r.history["epoch"]) - (r.shared.epochs if r.shared else 0) for r in together.values())
    assert trained == size_of_the_tree(alone)


def size_of_the_tree(records: dict[str, Record]) -> int:
    """How many epochs differ from each other by what rates were before them and in them."""
    nodes = set()
    for row, record in records.items():
        factors = [1.0, *record.history["controller_factor"][:-1]]
        rates = [
            (multipliers(record.settings, epoch, 4), factor, row if row == "of the loss" else "")
            for epoch, factor in enumerate(factors)
        ]
        nodes |= {tuple(rates[:count]) for count in range(1, len(rates) + 1)}
    return len(nodes)


def test_the_tree_of_these_rows_by_hand(alone):
    """static 4; late decay and step from 1/2: 2 each; from 3/4: 1 each; cosine 4; of the loss 4: 18 of 40.

    And what each monitored one did after its first intervention.
    """
    first = {
        row: min((i["epoch"] for i in alone[row].interventions), default=4)
        for row in ("monitored", "step at 1/2, monitored")
    }
    assert alone["monitored, never"].interventions == []
    after = 4 - first["monitored"]
    after += 4 - first["step at 1/2, monitored"]
    # Before the drop both monitors do the same: if one has acted there, the other has.
    after -= max(0, 2 - first["monitored"])
    assert size_of_the_tree(alone) == 18 + after


def test_a_monitor_that_never_acts_is_taken_from_the_record_alone(tmp_path, data, alone, one_thread):
    tasks = tasks_of(tmp_path, data, ROWS)
    assert alone["monitored, never"].interventions == []
    made = derived(tasks["monitored, never"], tasks["static"], alone["static"])
    assert numbers(made) == numbers(alone["monitored, never"])
    assert made.shared.model_dump() == {"identity": alone["static"].identity, "epochs": 4}
    assert made.origin == alone["static"].origin  # where it took place
    # The other way round, too, and the ledger takes it.
    back = derived(tasks["static"], tasks["monitored, never"], alone["monitored, never"])
    assert numbers(back) == numbers(alone["static"])
    ledger = Ledger(tmp_path / "ledger")
    ledger.add(made)
    assert ledger.find(made.identity) == made
    assert alone["monitored"].interventions != []
    assert derived(tasks["monitored"], tasks["static"], alone["static"]) is None
    assert derived(tasks["step at 3/4"], tasks["static"], alone["static"]) is None


def test_what_is_known_brings_its_weights(tmp_path, data, one_thread):
    tasks = tasks_of(tmp_path, data, ["static", "monitored, never"])
    train_run(tasks["static"])
    record = Ledger(tmp_path / "ledger").find(tasks["static"]["key"])
    sharing = Sharing()
    assert sharing.whole(tasks["monitored, never"]) is None  # nothing is known
    sharing.know(tasks["static"], record)
    made = sharing.whole(tasks["monitored, never"])
    assert made.weights == record.weights
    for name in record.weights:
        assert (Path(tasks["monitored, never"]["folder"]) / f"{name}.safetensors").read_bytes() == (
            Path(tasks["static"]["folder"]) / f"{name}.safetensors"
        ).read_bytes()
    for path in Path(tasks["static"]["folder"]).glob("*.safetensors"):
        path.unlink()
    # Neither measured nor to be measured: it has to be trained.
    assert sharing.whole(tasks["monitored, never"]) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "epochs"),
    [
        (STATIC, STATIC, 4),
        (STATIC, step(0.5), 2),
        (STATIC, step(0.6), 2),  # in the middle of the third epoch
        (step(0.5), step(0.75), 2),
        (late_decay(0.75), STATIC, 3),
        (late_decay(0.75), late_decay(0.5), 2),
        ({"function": "cosine", "parameters": {}}, STATIC, 0),
        (STATIC | {"warmup_epochs": 1.0}, STATIC, 0),
        (STATIC | {"warmup_epochs": 1.0}, step(0.75) | {"warmup_epochs": 1.0}, 3),
        ({"function": "cosine", "parameters": {}, "granularity": "epoch"}, STATIC, 1),
    ],
)
def test_how_long_two_schedules_agree(mine, theirs, epochs):
    a, b = (settings("lstm", num_epochs=4, schedule=one) for one in (mine, theirs))
    assert agreeing_epochs(a, b, 16) == agreeing_epochs(b, a, 16) == epochs


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({}, True),
        ({"controller": MONITOR}, True),
        ({"controller": {"name": "sparsity"}}, False),
        ({"controller": {"name": "loss_decay"}}, False),
        ({"compile": True}, False),
        ({"device": "cuda"}, False),
        ({"training_share": 0.5}, False),
    ],
)
def test_which_trainings_may_share_at_all(tmp_path, data, changes, may):
    assert (trunk_of(task(tmp_path, data, chosen("static") | changes)) is not None) == may


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"optimizer": {"name": "adamw", "base_lr": 0.1}},
        {"optimizer": {"name": "sgd", "base_lr": 0.05}},
        {"num_epochs": 5},
        {"batch_size": 8},
        {"gradient_clip": 1.0},
        {"precision": "bfloat16"},
    ],
)
def test_what_differs_in_anything_else_shares_nothing(tmp_path, data, changes):
    static, step_row = (
        task(tmp_path, data, chosen("static")),
        task(tmp_path, data, chosen("step at 1/2") | changes),
    )
    assert trunk_of(static) != trunk_of(step_row)
    assert trunk_of(static) == trunk_of(task(tmp_path, data, chosen("step at 1/2")))


@hypothesis_settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(sorted(ROWS)), min_size=1, unique=True), ORDERS)
def test_nothing_waits_for_ever(tmp_path_factory, rows, order):
    """Whatever begins and ends when: what waits is asked again, and something always runs."""
    sharing = Sharing()
    folder = Path("nowhere")
    tasks = {}
    for row in rows:
        one = chosen(row)
        tasks[row] = {
            "key": row, "folder": str(folder / row), "label": row, "settings": one, "data": "data",
            "described": {"num_examples": {"train": 70}},
        }  # fmt: skip
    for one in tasks.values():
        sharing.add(one)
    waiting, running, ended = list(rows), [], []
    order.shuffle(waiting)
    while waiting or running:
        while waiting:
            row = waiting.pop()
            if sharing.begin(tasks[row]) is not None:
                running.append(row)
        assert running
        row = running.pop(order.randrange(len(running)))
        ended.append(row)
        waiting += sharing.end(tasks[row])
    assert sorted(ended) == sorted(rows)


def test_a_checkpoint_that_cannot_be_read_costs_only_time(tmp_path, data, alone, one_thread, capsys):
    tasks = tasks_of(tmp_path, data, ["static", "step at 3/4"])
    train_run(tasks["static"] | {"keep_at": [1, 3]})
    (tmp_path / "checkpoints" / tasks["static"]["key"][:16] / "after-3.pt").write_bytes(b"damaged")
    trunk = {
        "folder": tasks["static"]["folder"],
        "key": tasks["static"]["key"],
        "label": "static",
        "epochs": 3,
    }
    train_run(tasks["step at 3/4"] | {"trunks": [trunk]})
    record = Ledger(tmp_path / "ledger").find(tasks["step at 3/4"]["key"])
    assert numbers(record) == numbers(alone["step at 3/4"])
    assert record.shared.epochs == 1  # the one before it
    said = capsys.readouterr().err
    assert "after-3.pt: not taken" in said
    assert "has its first 1 epochs in common with static" in said


def test_a_checkpoint_for_others_that_cannot_be_written_costs_only_time(tmp_path, data, alone, one_thread):
    """As where a user's quota is full, of which the disk's free space says nothing."""
    from lrstudy.files import write_atomically
    from lrstudy.study import runs

    def refused(path, content):
        if Path(path).name.startswith("after-"):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        write_atomically(path, content)

    static = tasks_of(tmp_path, data, ["static"])["static"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "write_atomically", refused)
        train_run(static | {"keep_at": [1, 3]})
    assert numbers(Ledger(tmp_path / "ledger").find(static["key"])) == numbers(alone["static"])
    assert not kept_for_others(Path(static["folder"]))


def test_a_training_that_was_killed_goes_on_and_still_says_what_it_shared(tmp_path, data, alone, one_thread):
    tasks = tasks_of(tmp_path, data, ["static", "step at 1/2"])
    train_run(tasks["static"] | {"keep_at": [2]})
    static = tasks["static"]
    trunk = {"folder": static["folder"], "key": static["key"], "label": "static", "epochs": 2}
    mine = tasks["step at 1/2"] | {"trunks": [trunk]}

    class Killed(BaseException):
        pass

    def dies(path, content):
        if Path(path).name == "outcome.json":
            raise Killed
        write_json(path, content)

    from lrstudy.files import write_json
    from lrstudy.study import runs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "write_json", dies)
        with pytest.raises(Killed):
            train_run(mine)
    for _, path in kept_for_others(Path(static["folder"])):
        path.unlink()
    train_run(mine)
    record = Ledger(tmp_path / "ledger").find(mine["key"])
    assert numbers(record) == numbers(alone["step at 1/2"])
    assert record.shared.model_dump() == {"identity": static["key"], "epochs": 2}


def test_a_record_that_shares_is_of_format_2_and_others_are_as_they_were(tmp_path, alone):
    whole = alone["static"]
    assert whole.format == 1
    assert b"shared" not in gzip.decompress(Ledger(tmp_path).add(whole).read_bytes())
    with pytest.raises(ValueError, match="a record of format 2 says what was shared"):
        Record.model_validate(whole.model_dump() | {"format": 2})
    with pytest.raises(ValueError, match="it shares 5 of 4 epochs"):
        Record.model_validate(
            whole.model_dump() | {"format": 2, "shared": {"identity": "a" * 64, "epochs": 5}}
        )


def test_common_counts_the_updates_of_the_real_training(tmp_path, data):
    """70 examples in batches of 16: a drop after a fifth of the second epoch acts in its second update of four."""
    a, b = (task(tmp_path, data, chosen("static", schedule=one)) for one in (STATIC, step(0.3)))
    assert common(a, b) == 1
