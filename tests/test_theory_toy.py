"""The toy model against what is known of it in closed form."""

import numpy as np
import pytest

from lrstudy.theory import toy

SEEDS = [0, 1, 2, 3]
POWERS = [0.0, 0.5, 1.0, 2.0]
COLUMN = np.array(POWERS)[:, None]  # broadcasts with (num_powers, num_seeds)


@pytest.fixture(scope="module")
def problems():
    return toy.draw_problems(num_examples=5, dimension=12, seeds=SEEDS)


def descend(problems, initial, **changes):
    settings = {"base_lr": 0.01, "decay_factor": 0.1, "noise": 0.5, "num_steps": 1000, "seeds": SEEDS}
    decay_steps = changes.pop("decay_steps", [10**9])
    return toy.descend(problems, POWERS, decay_steps, initial, **settings | changes)


def minimum_norm_weights(problems):
    return toy.weights_of(np.broadcast_to(problems.minimum, (len(POWERS), *problems.minimum.shape)), COLUMN)


def some_minimum(problems, length=0.5):
    """A minimum that is not the one of smallest norm: v = v_min + z, z in the inputs' null space."""
    z = np.random.default_rng(9).standard_normal(problems.minimum.shape)
    z -= np.einsum("rdn,rn->rd", np.linalg.pinv(problems.inputs), np.einsum("rnd,rd->rn", problems.inputs, z))
    z *= length / np.linalg.norm(z, axis=-1, keepdims=True)
    return toy.weights_of(np.broadcast_to(problems.minimum + z, (len(POWERS), *z.shape)), COLUMN)


def test_a_problem_depends_on_its_seed_alone():
    alone, together = toy.draw_problems(5, 12, [2]), toy.draw_problems(5, 12, [7, 2])
    np.testing.assert_array_equal(alone.inputs[0], together.inputs[1])
    np.testing.assert_array_equal(alone.minimum[0], together.minimum[1])


def test_effective_weights_are_undone(problems):
    v = np.random.default_rng(0).standard_normal((4, 4, 12))
    np.testing.assert_allclose(toy.effective(toy.weights_of(v, COLUMN), COLUMN), v, rtol=1e-12)


def test_no_minimum_has_a_smaller_norm(problems):
    smallest = toy.smallest_norm(problems, COLUMN)
    np.testing.assert_allclose(np.linalg.norm(minimum_norm_weights(problems), axis=-1), smallest, rtol=1e-12)
    other = some_minimum(problems)
    np.testing.assert_allclose(toy.train_loss(problems, other, COLUMN), 0, atol=1e-20)
    assert (np.linalg.norm(other, axis=-1) > smallest).all()


def test_trace_and_gradient_agree_with_automatic_differentiation(problems):
    import torch

    w = np.random.default_rng(1).standard_normal((len(POWERS), len(SEEDS), 12))
    traces = toy.hessian_trace(problems, w, COLUMN)
    losses = toy.train_loss(problems, w, COLUMN)
    for row, g in enumerate(POWERS):
        x, y = torch.from_numpy(problems.inputs[1]), torch.from_numpy(problems.labels[1])

        def loss(u, g=g, x=x, y=y):
            return ((u.norm() ** g * (x @ u) - y) ** 2).mean() / 2

        u = torch.from_numpy(w[row, 1])
        assert losses[row, 1] == pytest.approx(loss(u).item(), rel=1e-12)
        assert traces[row, 1] == pytest.approx(torch.func.hessian(loss)(u).trace().item(), rel=1e-10)


def test_one_update_is_a_gradient_step_on_one_noisy_example():
    import torch

    problems = toy.draw_problems(1, 6, SEEDS)  # one example: which one is drawn is known
    initial = toy.start(problems, POWERS, 1.5, SEEDS)
    found = descend(problems, initial, noise=0.0, num_steps=1, base_lr=0.05).weights[:, 0]
    for row, g in enumerate(POWERS):
        u = torch.tensor(initial[row, 2], requires_grad=True)
        residual = u.norm() ** g * (torch.from_numpy(problems.inputs[2, 0]) @ u) - problems.labels[2, 0]
        (residual**2 / 2).backward()
        np.testing.assert_allclose(found[row, 2], (u.detach() - 0.05 * u.grad).numpy(), rtol=1e-12)


def test_test_loss_is_that_of_many_new_examples(problems):
    w = some_minimum(problems)
    inputs = np.random.default_rng(5).standard_normal((200_000, 12))
    outputs = inputs @ toy.effective(w, COLUMN)[2, 3]
    sampled = ((outputs - inputs @ problems.teacher[3]) ** 2).mean() / 2
    assert toy.test_loss(problems, w, COLUMN)[2, 3] == pytest.approx(sampled, rel=0.02)


def test_without_noise_the_drift_stops_at_interpolation(problems):
    initial = toy.start(problems, POWERS, 1.5, SEEDS)
    short = descend(problems, initial, noise=0.0, num_steps=6000)
    assert toy.train_loss(problems, short.weights[:, 0], COLUMN).max() < 1e-8
    long = descend(problems, initial, noise=0.0, num_steps=9000)
    np.testing.assert_allclose(long.weights, short.weights, atol=2e-4)
    norms = np.linalg.norm(short.weights[:, 0], axis=-1)
    assert (norms > 1.01 * toy.smallest_norm(problems, COLUMN)).all()  # not at the minimum norm


def test_without_noise_every_minimum_is_a_fixed_point(problems):
    for minimum in (minimum_norm_weights(problems), some_minimum(problems)):
        found = descend(problems, minimum, noise=0.0, num_steps=200).weights[:, 0]
        np.testing.assert_allclose(found, minimum, rtol=0, atol=1e-12)


def test_noise_does_not_drive_away_from_the_minimum_norm_solution(problems):
    """It is in the span of the inputs, which no update leaves, and no other minimum is."""
    found = descend(problems, minimum_norm_weights(problems), num_steps=3000).weights[:, 0]
    inside = np.einsum(
        "rdn,grn->grd",
        np.linalg.pinv(problems.inputs),
        np.einsum("rnd,grd->grn", problems.inputs, found),
    )
    np.testing.assert_allclose(inside, found, atol=1e-10)


def test_power_0_is_linear_regression_with_its_known_limit(problems):
    initial = toy.start(problems, POWERS, 1.5, SEEDS)
    found = descend(problems, initial, noise=0.0, num_steps=8000).weights[0, 0]
    projection = np.linalg.pinv(problems.inputs) @ problems.inputs
    limit = problems.minimum + initial[0] - np.einsum("rde,re->rd", projection, initial[0])
    np.testing.assert_allclose(found, limit, atol=1e-6)


def test_power_0_does_not_drift_under_noise(problems):
    """Its Hessian is the same everywhere: what the null space holds at the start stays there."""
    initial = toy.start(problems, POWERS, 1.5, SEEDS)
    found = descend(problems, initial, num_steps=3000).weights[0, 0]
    projection = np.eye(12) - np.linalg.pinv(problems.inputs) @ problems.inputs
    np.testing.assert_allclose(
        np.einsum("rde,re->rd", projection, found),
        np.einsum("rde,re->rd", projection, initial[0]),
        atol=1e-10,
    )
    assert (toy.norm_drift(problems, 0.0, np.full(len(SEEDS), 2.0), 0.01, 0.5) == 0).all()


def test_the_direction_in_the_null_space_never_changes(problems):
    initial = toy.start(problems, POWERS, 1.5, SEEDS)
    found = descend(problems, initial, num_steps=2000).weights[:, 0]
    projection = np.eye(12) - np.linalg.pinv(problems.inputs) @ problems.inputs
    before, after = (np.einsum("rde,grd->gre", projection, w) for w in (initial, found))
    cosines = (before * after).sum(-1) / np.linalg.norm(before, axis=-1) / np.linalg.norm(after, axis=-1)
    np.testing.assert_allclose(cosines, 1, atol=1e-9)


def test_the_drift_of_the_norm_is_the_predicted_one():
    """40 seeds, a small rate: the mean fall of the norm on the minima, against the formula integrated."""
    seeds = list(range(40))
    problems = toy.draw_problems(5, 12, seeds)
    initial = some_minimum(problems, length=1.0)[1:3]
    powers, column = POWERS[1:3], COLUMN[1:3]
    lr, noise, steps = 0.004, 0.5, 6000
    found = toy.descend(
        problems, powers, [steps], initial,
        base_lr=lr, decay_factor=1.0, noise=noise, num_steps=steps, seeds=seeds,
    ).weights[:, 0]  # fmt: skip
    norm = first = np.linalg.norm(initial, axis=-1)
    for _ in range(steps // 50):
        norm = norm + 50 * toy.norm_drift(problems, column, norm, lr, noise)
    # of the null space's part alone: the noise about the minima adds to the norm itself
    projection = np.eye(12) - np.linalg.pinv(problems.inputs) @ problems.inputs

    def null_length(w):
        return np.linalg.norm(np.einsum("rde,grd->gre", projection, w), axis=-1)

    share = (toy.smallest_norm(problems, column) / norm) ** (2 * column + 2)
    predicted = np.sqrt(1 - share) * norm
    falls = null_length(initial) - null_length(found)
    assert (falls.mean(axis=1) > 0.02).all()
    np.testing.assert_allclose(falls.mean(axis=1), (null_length(initial) - predicted).mean(axis=1), rtol=0.1)
    assert (norm < first).all()


def test_at_the_smallest_norm_the_drift_ends(problems):
    smallest = toy.smallest_norm(problems, COLUMN)
    np.testing.assert_allclose(toy.norm_drift(problems, COLUMN, smallest, 0.01, 0.5), 0, atol=1e-15)


def test_the_flattest_norm_has_the_smallest_trace(problems):
    a, b = (problems.inputs**2).sum(-1).mean(-1), (problems.labels**2).mean(-1)
    for g in POWERS[1:]:
        norms = toy.flattest_norm(problems, g)[:, None] * np.linspace(0.5, 2, 301)
        trace = a[:, None] * norms ** (2 * g) + (g**2 + 2 * g) * b[:, None] / norms**2
        np.testing.assert_allclose(np.linspace(0.5, 2, 301)[trace.argmin(axis=1)], 1, atol=0.01)


def test_a_decay_only_changes_what_comes_after_it(problems):
    initial = toy.start(problems, POWERS, 1.5, SEEDS)
    found = descend(problems, initial, decay_steps=[500, 1000], num_steps=1000, num_records=4)
    np.testing.assert_array_equal(found.steps, [250, 500, 750, 1000])
    np.testing.assert_array_equal(found.norms[:2, :, 0], found.norms[:2, :, 1])
    assert (found.norms[2:, :, 0] != found.norms[2:, :, 1]).all()
    never = descend(problems, initial, decay_steps=[1000], num_steps=1000)
    np.testing.assert_array_equal(found.weights[:, 1], never.weights[:, 0])


def test_a_rate_too_large_diverges_and_disturbs_no_other_run(problems):
    initial = toy.start(problems, POWERS, 1.5, SEEDS)
    initial[3] *= 100
    found = descend(problems, initial, num_steps=200).weights
    assert not np.isfinite(found[3]).any()
    assert np.isfinite(found[:3]).all()
