"""What a training loop holds goes through pickle, copies and spawned processes, and is the same there."""

import copy
import multiprocessing
import pickle
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrstudy.controllers import CONTROLLERS, make_controller
from lrstudy.schedules import (
    GRANULARITIES,
    SCHEDULES,
    as_torch_scheduler,
    described,
    make_schedule,
    product,
    schedule,
    sequence,
    with_warmup,
)

TIMES = [0, 0.5, 1, 2.25, 3, 4.75, 6]


def half(t: float) -> float:
    return 0.5


@st.composite
def schedules(draw, depth=2):
    """Of every kind, over 6 epochs."""
    kind = draw(st.sampled_from(["one", "warmup", "sequence", "product"])) if depth else "one"
    if kind == "one":
        return make_schedule(
            draw(st.sampled_from(sorted(SCHEDULES))),
            6,
            warmup_epochs=draw(st.sampled_from([0, 1, 0.75])),
            granularity=draw(st.sampled_from(GRANULARITIES)),
        )
    if kind == "warmup":
        return with_warmup(make_schedule(draw(st.sampled_from(sorted(SCHEDULES))), 4), 2)
    inner = draw(schedules(depth=depth - 1))
    if kind == "product":
        return product(inner, half, draw(schedules(depth=depth - 1)))
    return sequence((inner, 2), (half, 1.5), (draw(schedules(depth=depth - 1)), 2.5))


@settings(deadline=None)
@given(schedules())
def test_a_schedule_is_the_same_after_pickling_and_copying(made):
    for carried in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), copy.copy(made)):
        assert carried == made
        assert [carried(t) for t in TIMES] == [made(t) for t in TIMES]
        assert described(carried) == described(made)
        assert hash(carried) == hash(made)


@settings(deadline=None)
@given(schedules(depth=0))
def test_what_a_schedule_says_of_itself_makes_it_again(made):
    assert eval(repr(made)) == made


def test_schedules_that_differ_say_so():
    cosine = make_schedule("cosine", 10)
    others = [
        make_schedule("cosine", 20),
        make_schedule("cosine", 10, min_factor=0.1),
        make_schedule("cosine", 10, warmup_epochs=1),
        make_schedule("cosine", 10, granularity="epoch"),
        make_schedule("polynomial", 10),
        product(cosine),
        half,
    ]
    assert len({described(one) for one in [cosine, *others]}) == 8
    assert all(one != cosine for one in others)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_an_entry_of_the_registry_is_itself_wherever_it_goes(name):
    assert pickle.loads(pickle.dumps(SCHEDULES[name])) is SCHEDULES[name]
    assert copy.deepcopy(SCHEDULES[name]) is SCHEDULES[name]


def test_a_schedule_of_a_package_of_ones_own_pickles(tmp_path, monkeypatch):
    """A plain function, and one under ``@schedule``; the reading process has neither imported."""
    (tmp_path / "pickled_rates.py").write_text(
        "from lrstudy.schedules import schedule\n"
        "def plain(t, num_epochs, *, knee=0.5):\n"
        "    return knee\n"
        "@schedule()\n"
        "def decorated(t, num_epochs):\n"
        "    return 0.25\n"
    )
    monkeypatch.chdir(tmp_path)
    made = [make_schedule(f"pickled_rates:{name}", 10) for name in ("plain", "decorated")]
    assert pickle.loads(pickle.dumps(made)) == made
    (tmp_path / "made").write_bytes(pickle.dumps(made))
    code = "import pickle; print([one(1) for one in pickle.load(open('made', 'rb'))])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[0.5, 0.25]"


def test_what_cannot_be_found_by_its_name_is_refused_when_it_is_pickled():
    @schedule()
    def local(t, num_epochs):
        return 1.0

    made = local(3)
    assert copy.deepcopy(made)(1) == 1.0
    with pytest.raises(Exception, match="local"):
        pickle.dumps(made)


@pytest.mark.parametrize("name", sorted(CONTROLLERS))
def test_a_controller_pickles_with_its_state(name):
    controller = make_controller(name)
    for epoch in range(1, 4):
        controller.before_step(zero_share=0.5)
        controller.after_epoch(epoch=epoch, train_loss=1.0, validation_loss=epoch, gradient_norm=epoch)
    for carried in (pickle.loads(pickle.dumps(controller)), copy.deepcopy(controller)):
        assert carried.state_dict() == controller.state_dict()
        assert carried.params == controller.params


def test_a_torch_scheduler_goes_on_exactly_after_pickling_and_copying():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = as_torch_scheduler(optimizer, make_schedule("cosine", 4, warmup_epochs=1), 3)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    carried = [pickle.loads(pickle.dumps(scheduler)), copy.deepcopy(scheduler)]
    for _ in range(7):
        optimizer.step()
        scheduler.step()
        for one in carried:
            one.optimizer.step()
            one.step()
            assert one.get_last_lr() == scheduler.get_last_lr()
            assert one.optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def _values(made, sent):
    sent.put([made(t) for t in TIMES])


def test_schedules_cross_into_a_spawned_process():
    made = product(
        with_warmup(make_schedule("cosine", 5), 1), sequence((make_schedule("step", 3), 3), (half, 3))
    )
    context = multiprocessing.get_context("spawn")
    sent = context.Queue()
    process = context.Process(target=_values, args=(made, sent))
    process.start()
    try:
        assert sent.get(timeout=120) == [made(t) for t in TIMES]
    finally:
        process.join()
    assert process.exitcode == 0
