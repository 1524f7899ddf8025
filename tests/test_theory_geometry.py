"""Sharpness, planes, paths and level sets against closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lrstudy.theory import components, connectivity, curvature, landscape


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def symmetric(eigenvalues: list[float], seed: int = 0) -> torch.Tensor:
    basis, _ = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), generator=seeded(seed)))
    return basis @ torch.diag(torch.tensor(eigenvalues)) @ basis.T


# --- Sharpness --------------------------------------------------------------------------------------------


def test_a_quadratics_hessian_is_its_matrix_over_several_tensors():
    matrix = symmetric([3.0, 1.0, 0.5, 0.0, 2.0])
    a, b = torch.randn(2, 1, requires_grad=True), torch.randn(3, requires_grad=True)

    def loss():
        w = torch.cat([a.reshape(-1), b])
        return w @ matrix @ w / 2

    product = curvature.hessian_product(loss, [a, b])
    for vector in torch.randn(4, 5, generator=seeded()):
        torch.testing.assert_close(product(vector), matrix @ vector)


def test_weights_that_the_loss_does_not_see_have_no_curvature():
    a, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    product = curvature.hessian_product(lambda: (a**2).sum(), [a, unused])
    torch.testing.assert_close(product(torch.ones(5)), torch.tensor([2.0, 2.0, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("top", [5.0, -5.0])
def test_power_iteration_finds_the_eigenvalue_of_largest_magnitude_with_its_sign(top):
    matrix = symmetric([top, 2.0, 1.0, -1.0, 0.1])
    value, residual = curvature.top_eigenvalue(
        lambda v: matrix @ v, 5, seeded(), num_iterations=200, tolerance=1e-5
    )
    assert value == pytest.approx(top, rel=1e-4)
    assert residual <= 1e-4 * abs(value)


def test_power_iteration_says_how_far_it_came():
    """An eigenvalue lies within the residual of the value (Weinstein), converged or not."""
    eigenvalues = [5.0, 4.9, 1.0, -4.8, 0.1]
    matrix = symmetric(eigenvalues)
    value, residual = curvature.top_eigenvalue(lambda v: matrix @ v, 5, seeded(), num_iterations=3)
    assert min(abs(value - e) for e in eigenvalues) <= residual + 1e-5
    assert residual > 0.01


def test_no_curvature_has_no_eigenvalue():
    assert curvature.top_eigenvalue(lambda v: 0 * v, 4, seeded(), num_iterations=5) == (0.0, 0.0)


def test_hutchinson_is_exact_for_a_diagonal_and_unbiased_otherwise():
    diagonal = torch.tensor([1.0, -2.0, 4.0])
    assert curvature.trace(lambda v: diagonal * v, 3, seeded(), num_samples=3) == pytest.approx((3.0, 0.0))
    matrix = symmetric([3.0, 1.0, 0.5, 0.0, 2.0])
    mean, error = curvature.trace(lambda v: matrix @ v, 5, seeded(1), num_samples=4000)
    assert abs(mean - 6.5) < 4 * error
    assert 0 < error < 0.05
    assert curvature.trace(lambda v: matrix @ v, 5, seeded(), num_samples=1)[1] == math.inf


@pytest.mark.parametrize("kind", ["resnet", "lstm", "transformer"])
def test_the_studys_networks_have_hessian_products(kind, one_thread):
    """Against a difference of gradients, through the layers that have other kernels than these."""
    from lrstudy.recipe.models import make_model
    from tiny_data import MAX_LENGTH, MODELS, VOCAB_SIZE

    torch.manual_seed(0)
    meta = {"num_classes": 2, "vocab_size": VOCAB_SIZE, "max_length": MAX_LENGTH}
    model = make_model(MODELS[kind], meta).double().eval()
    if kind == "resnet":
        inputs = (torch.randn(4, 3, 32, 32, dtype=torch.float64),)
        for module in model.modules():  # no kinks between the two gradients
            if isinstance(module, nn.BatchNorm2d):
                module.bias.data += 3.0
    else:
        inputs = (torch.randint(1, VOCAB_SIZE, (4, 6)), torch.tensor([6, 5, 4, 6]))
    labels = torch.tensor([0, 1, 1, 0])
    weights = list(model.parameters())

    def loss():
        return nn.functional.cross_entropy(model(*inputs), labels)

    vector = torch.randn(sum(w.numel() for w in weights), dtype=torch.float64)
    vector /= vector.norm()
    found = curvature.hessian_product(loss, weights)(vector)

    def gradient_at(step):
        parts = vector.split([w.numel() for w in weights])
        with torch.no_grad():
            for w, part in zip(weights, parts, strict=True):
                w += step * part.view(w.shape)
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss(), weights)])
        with torch.no_grad():
            for w, part in zip(weights, parts, strict=True):
                w -= step * part.view(w.shape)
        return gradient

    difference = (gradient_at(1e-5) - gradient_at(-1e-5)) / 2e-5
    assert found.norm() > 1e-6
    torch.testing.assert_close(found, difference, rtol=1e-4, atol=1e-7)


# --- Planes -----------------------------------------------------------------------------------------------


def test_points_in_a_plane_are_found_again_in_it():
    rng = np.random.default_rng(0)
    frame, _ = np.linalg.qr(rng.standard_normal((50, 2)))
    flat = rng.standard_normal((7, 2)) * [3.0, 1.0]
    points = rng.standard_normal(50) + flat @ frame.T
    plane = landscape.principal_plane(points)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-10)
    for point, (x, y) in zip(points, plane.coordinates, strict=True):
        np.testing.assert_allclose(plane.at(x, y), point, atol=1e-9)
    np.testing.assert_allclose(plane.place(points), plane.coordinates, atol=1e-9)
    assert plane.explained.sum() == pytest.approx(1.0)
    assert plane.explained[0] > plane.explained[1]
    assert (plane.coordinates[-1] >= 0).all()


def test_the_plane_shows_the_largest_spread():
    """Of a cloud with known variances along the coordinates it takes the two largest."""
    points = np.random.default_rng(1).standard_normal((400, 4)) * [0.1, 5.0, 0.2, 2.0]
    plane = landscape.principal_plane(points)
    assert abs(plane.axes[0, 1]) > 0.99
    assert abs(plane.axes[1, 3]) > 0.99
    np.testing.assert_allclose(plane.explained, np.array([25, 4]) / 29.05, atol=0.05)


def test_points_on_a_line_have_no_plane():
    with pytest.raises(ValueError, match="on one line"):
        landscape.principal_plane(np.outer(np.arange(5.0), np.ones(9)))


def test_the_grid_covers_the_points_with_a_margin():
    x, y = landscape.grid([[0.0, 1.0], [4.0, 2.0]], resolution=5, margin=0.25)
    np.testing.assert_allclose(x, [-1.0, 0.5, 2.0, 3.5, 5.0])
    assert (y[0], y[-1], len(y)) == (0.0, 3.0, 5)


def test_a_surface_has_a_row_for_each_y_and_a_column_for_each_x():
    plane = landscape.Plane(np.zeros(3), np.eye(3)[:2], np.zeros((1, 2)), np.ones(2))
    found = landscape.on_grid(lambda w: {"sum": float(w[0] + 10 * w[1])}, plane, [0, 1, 2], [0, 1])
    np.testing.assert_array_equal(found["sum"], [[0, 1, 2], [10, 11, 12]])


# --- Paths ------------------------------------------------------------------------------------------------


A, B, C = torch.tensor([0.0, 0.0]), torch.tensor([4.0, 0.0]), torch.tensor([2.0, 6.0])


def test_paths_begin_and_end_at_the_solutions():
    for path in (connectivity.line(A, B), connectivity.bezier(A, C, B), connectivity.polyline([A, C, B])):
        torch.testing.assert_close(path(0.0), A)
        torch.testing.assert_close(path(1.0), B)
    torch.testing.assert_close(connectivity.bezier(A, C, B)(0.5), torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(connectivity.polyline([A, C, B])(0.5), C)
    torch.testing.assert_close(connectivity.polyline([A, C, B])(0.75), torch.tensor([3.0, 3.0]))
    torch.testing.assert_close(connectivity.line(A, B)(0.25), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    ("losses", "barrier", "dip"),
    [
        ([1.0, 1.5, 2.0], 0.0, 0.0),  # monotone: in both sets
        ([1.0, 5.0, 2.0], 3.0, 0.0),  # a hill above the worse end
        ([1.0, 0.25, 2.0], 0.0, 0.75),  # a valley below the better end
        ([1.0, 5.0, 0.5, 2.0], 3.0, 0.5),
        ([1.0, math.inf, 2.0], math.inf, 0.0),
    ],
)
def test_barriers_and_dips(losses, barrier, dip):
    assert connectivity.barrier(losses) == barrier
    assert connectivity.dip(losses) == dip


def test_the_worst_case_is_over_the_whole_family():
    found = connectivity.worst({"train": [1, 1, 1], "batch 1": [1, 3, 1], "test": [1, 0.5, 1]})
    assert found == {"barrier": 2.0, "dip": 0.5}


def test_a_convex_loss_has_no_barrier_and_the_curve_goes_through_its_minimum():
    def gradient(w):
        return 2 * (w - C)

    def losses(w):
        return {"loss": float(((w - C) ** 2).sum())}

    along = connectivity.along(losses, connectivity.line(A, B), 21)["loss"]
    assert connectivity.barrier(along) == 0
    assert connectivity.dip(along) == pytest.approx(4.0)  # 40 at the ends, 36 in the middle
    control = connectivity.train_bezier(gradient, A, B, num_steps=800, lr=0.2, rng=np.random.default_rng(0))
    # E |B(t) - C|^2 is quadratic in the control point: its minimum by the weights' moments over t.
    t = np.linspace(0, 1, 20001)
    weight = 2 * t * (1 - t)
    ends = (1 - t)[:, None] ** 2 * A.numpy() + t[:, None] ** 2 * B.numpy()
    best = (weight[:, None] * (C.numpy() - ends)).mean(axis=0) / (weight**2).mean()
    np.testing.assert_allclose(control.numpy(), best, rtol=0.03)


def test_a_trained_curve_goes_round_a_hill_that_the_line_crosses():
    """Two minima on a ring: the straight line crosses its hill, a curve need not."""

    def value(w):
        return ((w**2).sum() - 1) ** 2

    def gradient(w):
        return 4 * ((w**2).sum() - 1) * w

    def losses(w):
        return {"loss": float(value(w))}

    start, end = torch.tensor([-1.0, 0.05]), torch.tensor([1.0, 0.05])
    hill = connectivity.barrier(connectivity.along(losses, connectivity.line(start, end), 41)["loss"])
    control = connectivity.train_bezier(
        gradient, start, end, num_steps=600, lr=0.05, rng=np.random.default_rng(0)
    )
    around = connectivity.barrier(
        connectivity.along(losses, connectivity.bezier(start, control, end), 41)["loss"]
    )
    assert hill > 0.9
    assert around < 0.1


class Tiny(nn.Module):
    """A network with a hidden layer and a linear classifier, its weights one vector."""

    def __init__(self, num_inputs=3, num_hidden=5, num_classes=4):
        super().__init__()
        self.hidden = nn.Linear(num_inputs, num_hidden)
        self.classifier = nn.Linear(num_hidden, num_classes)

    def forward(self, x):
        return self.classifier(self.hidden(x).relu())


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 4.0))
def test_over_the_top_no_two_solutions_of_a_network_are_parted_in_the_superlevel_set(seed, scale):
    """Whatever the weights (a stand-in for whatever schedule trained them), the path never dips below both."""
    generator = seeded(seed)
    model, x = Tiny(), torch.randn(12, 3, generator=generator)
    y = torch.arange(12) % 4
    size = sum(p.numel() for p in model.parameters())

    def logits(w):
        torch.nn.utils.vector_to_parameters(w, model.parameters())
        with torch.no_grad():
            return model(x).double()

    def losses(w):
        return {"train": float(nn.functional.cross_entropy(logits(w), y))}

    ends = []
    for _ in range(2):
        w = scale * torch.randn(size, generator=generator)
        while losses(w)["train"] > math.log(4):  # the theorem's condition: no worse than guessing
            w = 0.5 * w
            if w.norm() < 1e-3:
                break
        ends.append(w)
    if max(losses(w)["train"] for w in ends) > math.log(4):
        return
    shares = torch.bincount(y) / len(y)
    outputs = [logits(w) for w in ends]
    corners = connectivity.over_the_top(
        *ends,
        classifier=(slice(20, 40), slice(40, 44)),
        bias_gradients=tuple(out.softmax(1).mean(0) - shares for out in outputs),
        largest_logit=max(
            max(out.abs().max().item(), w[40:44].abs().max().item())
            for out, w in zip(outputs, ends, strict=True)
        ),
        class_shares=shares,
    )
    torch.testing.assert_close(corners[0], ends[0])
    torch.testing.assert_close(corners[-1], ends[1])
    along = connectivity.along(losses, connectivity.polyline(corners), 101)["train"]
    assert connectivity.dip(along) < 1e-5
    assert max(along) > 10  # it did go over the top


def test_pairs_differ_in_seed_or_in_schedule_and_never_in_both():
    found = connectivity.pairs(["static", "cosine", "step"], [1, 2, 3])
    assert len(found) == 3 * 2 + 2 * 3
    for pair in found:
        (a, seed_a), (b, seed_b) = pair["ends"]
        assert (a == b) == (pair["kind"] == "seeds")
        assert (seed_a == seed_b) == (pair["kind"] == "schedules")
    assert connectivity.pairs(["static"], [1]) == []


# --- Level sets -------------------------------------------------------------------------------------------


def counts(field, level, tolerance=0.0):
    (found,) = components.component_counts(field, [level], tolerance)
    return found["superlevel"], found["sublevel"]


def test_components_of_a_bowl_a_ridge_and_two_wells():
    x, y = np.meshgrid(np.linspace(-2, 2, 41), np.linspace(-2, 2, 41))
    bowl = x**2 + y**2
    assert counts(bowl, 1.0) == (1, 1)  # the outside is one piece, the inside too
    wells = np.minimum((x - 1) ** 2, (x + 1) ** 2) + y**2
    assert counts(wells, 0.25) == (1, 2)
    assert counts(wells, 1.5) == (2, 1)  # the window cuts what is outside of the joined wells in two
    ridges = -wells
    assert counts(ridges, -0.25) == (2, 1)
    strip = np.abs(x)
    assert counts(strip, 1.0) == (2, 1)  # a valley through the whole plane parts what is above it


def test_all_of_the_plane_is_one_component_or_none():
    field = np.arange(12.0).reshape(3, 4)
    assert counts(field, -1.0) == (1, 0)
    assert counts(field, 99.0) == (0, 1)


def test_what_hardly_exceeds_the_level_is_not_counted():
    field = np.zeros((5, 5))
    field[0, 0], field[4, 4] = 1.0, 0.1
    assert counts(field, 0.05) == (2, 1)
    assert counts(field, 0.05, tolerance=0.2)[0] == 1


def test_values_that_are_not_finite_lie_above_every_level():
    field = np.zeros((3, 5))
    field[:, 2] = np.nan
    assert counts(field, 0.5) == (1, 2)


def test_corners_touch():
    assert counts(np.eye(3), 0.5) == (1, 1)


def test_levels_lie_strictly_inside_the_values_and_grow():
    field = np.array([[0.0, 1.0, np.inf], [2.0, 3.0, 100.0]])
    levels = components.levels_of(field, 7)
    assert (np.diff(levels) > 0).all()
    assert levels[0] > 0
    assert levels[-1] < 100


@pytest.mark.parametrize(
    ("losses", "share", "largest"),
    [([3, 2, 1], 0.0, 0.0), ([3, 2, 2.5, 1, 1], 0.25, 0.5), ([1, 2], 1.0, 1.0), ([1], None, None)],
)
def test_rises(losses, share, largest):
    assert components.rises(losses) == {"share": share, "largest": largest}
