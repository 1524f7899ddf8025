"""Mini-batches: what an epoch is, and that batches made whole equal those made example by example."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrstudy.training.batches import (
    ImageSplit,
    TextSplit,
    fixed_sample,
    full_batches,
    make_split,
    num_steps,
    shift_and_mirror,
)
from tiny_data import dataset, image_arrays, text_arrays

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
META = {"kind": "image", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def make(kind: str, count: int, augment: str = "none") -> ImageSplit | TextSplit:
    arrays = image_arrays(count) if kind == "image" else text_arrays(count)
    return make_split(arrays, META | {"kind": kind}, CPU, augment)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(batches) -> list[list[int]]:
    return [rows.tolist() for _, _, rows in batches]


# ------------------------------------------------------------------------------------------ what an epoch is


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize(("count", "size", "sizes"), [(70, 16, [16] * 4), (64, 16, [16] * 4), (5, 16, [5])])
def test_an_epoch_trains_on_each_example_at_most_once(kind, count, size, sizes):
    split = make(kind, count)
    batches = rows_of(split.training_batches(size, seeded()))
    assert [len(rows) for rows in batches] == sizes
    assert len(batches) == num_steps(count, size)
    seen = [row for rows in batches for row in rows]
    assert len(set(seen)) == len(seen) == sum(sizes)
    assert set(seen) <= set(range(count))


@given(count=st.integers(1, 500), size=st.integers(1, 200))
def test_whole_batches_leave_out_less_than_one(count, size):
    batches = full_batches(torch.arange(count), size)
    assert len(batches) == num_steps(count, size)
    assert {len(rows) for rows in batches} == {min(size, count)}
    assert torch.cat(batches).tolist() == list(range(count))[: len(batches) * min(size, count)]
    assert count - sum(map(len, batches)) < size


@pytest.mark.parametrize("kind", ["image", "text"])
def test_batches_follow_the_seed_and_epochs_differ(kind):
    split, generator = make(kind, 70), seeded(1)
    first, second = (rows_of(split.training_batches(16, generator)) for _ in range(2))
    again = seeded(1)
    assert [rows_of(split.training_batches(16, again)) for _ in range(2)] == [first, second]
    assert first != second
    assert rows_of(split.training_batches(16, seeded(2))) != first


@pytest.mark.parametrize("kind", ["image", "text"])
def test_no_example_is_left_out_of_every_epoch(kind):
    split, generator = make(kind, 70), seeded()
    seen = {row for _ in range(40) for rows in rows_of(split.training_batches(16, generator)) for row in rows}
    assert seen == set(range(70))


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("size", [1, 16, 70, 500])
def test_evaluation_batches_cover_every_example_once(kind, size):
    split = make(kind, 70)
    batches = list(split.evaluation_batches(size))
    assert sorted(row for rows in rows_of(batches) for row in rows) == list(range(70))
    for _, labels, rows in batches:
        assert torch.equal(labels, split.labels[rows])


@pytest.mark.parametrize("kind", ["image", "text"])
def test_labels_and_rows_belong_to_the_inputs(kind):
    split = make(kind, 70)
    for inputs, labels, rows in split.training_batches(16, seeded()):
        assert torch.equal(labels, split.labels[rows])
        assert labels.dtype == torch.int64
        expected, _, _ = split._batch(rows, None) if kind == "image" else split._batch(rows)
        assert all(torch.equal(a, b) for a, b in zip(inputs, expected, strict=True))


# ---------------------------------------------------------------------------------------------------- images


def test_pixels_are_normalized_with_the_training_statistics():
    arrays = image_arrays(20)
    split = ImageSplit(arrays, META, CPU)
    ((images,), _, rows), *_ = split.evaluation_batches(20)
    expected = (arrays["images"][rows] / 255 - np.array(META["mean"])) / np.array(META["std"])
    np.testing.assert_allclose(images.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)
    assert images.dtype == torch.float32
    assert images.shape == (20, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_the_training_split_gets_mean_0_and_deviation_1():
    splits, meta = dataset("image")
    split = make_split(splits["train"], meta, CPU)
    images = torch.cat([images for (images,), _, _ in split.evaluation_batches(16)]).double()
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3, dtype=torch.double), rtol=0, atol=1e-5)
    deviation = images.var((0, 2, 3), correction=0).sqrt()
    torch.testing.assert_close(deviation, torch.ones(3, dtype=torch.double), rtol=0, atol=1e-5)


def test_batches_leave_the_split_as_it_was():
    split = make("image", 20, "crop_flip")
    before = split.images.clone()
    for _ in split.training_batches(8, seeded()):
        pass
    assert torch.equal(split.images, before)


def shifted(image: np.ndarray, down: int, right: int, mirrored: bool) -> np.ndarray:
    """Zeros around an image (H, W, C), a window moved by (down, right), then a mirror."""
    height, width, _ = image.shape
    padded = np.zeros((height + 8, width + 8, 3), image.dtype)
    padded[4 : 4 + height, 4 : 4 + width] = image
    window = padded[4 + down : 4 + down + height, 4 + right : 4 + right + width]
    return window[:, ::-1] if mirrored else window


def test_crop_flip_is_a_shift_of_at_most_4_pixels_and_a_fair_mirror():
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (12, 12, 3)).astype(np.uint8)
    variants = {
        shifted(image, down, right, mirrored).tobytes(): (down, right, mirrored)
        for down in range(-4, 5)
        for right in range(-4, 5)
        for mirrored in (False, True)
    }
    count = 4000
    images = torch.from_numpy(np.repeat(image[None], count, axis=0))
    draws = np.array([variants[moved.numpy().tobytes()] for moved in shift_and_mirror(images, seeded())])
    assert len(np.unique(draws, axis=0)) == len(variants)
    # five standard deviations of a fair draw
    for axis in (0, 1):
        counts = np.bincount(draws[:, axis] + 4)
        assert np.all(abs(counts - count / 9) < 5 * np.sqrt(count * 8 / 81))
    assert abs(draws[:, 2].sum() - count / 2) < 5 * np.sqrt(count / 4)
    assert abs(np.corrcoef(draws.T) - np.eye(3)).max() < 5 / np.sqrt(count)


def test_crop_flip_equals_a_loop_over_the_same_draws():
    images = image_arrays(30)["images"]
    generator = seeded(3)
    draws = torch.randint(0, 9, (2, 30, 1), generator=generator)[..., 0] - 4
    mirrored = torch.rand(30, 1, generator=generator)[:, 0] < 0.5
    expected = [
        shifted(image, int(down), int(right), bool(flip))
        for image, down, right, flip in zip(images, *draws, mirrored, strict=True)
    ]
    found = shift_and_mirror(torch.from_numpy(images), seeded(3))
    np.testing.assert_array_equal(found.numpy(), expected)


def test_augmentation_changes_training_images_only():
    plain, augmented = make("image", 20), make("image", 20, "crop_flip")

    def images(batches) -> torch.Tensor:
        return torch.cat([images for (images,), _, _ in batches])

    assert torch.equal(images(plain.evaluation_batches(8)), images(augmented.evaluation_batches(8)))
    training = images(plain.training_batches(8, seeded())), images(augmented.training_batches(8, seeded()))
    assert not torch.equal(*training)
    assert torch.equal(images(augmented.training_batches(8, seeded())), training[1])


def test_zero_share_of_images_counts_black_values():
    split = make("image", 6)
    split.images.fill_(9)
    split.images[1] = 0
    split.images[3, :, :, 0] = 0
    assert split.zero_share(torch.tensor([1])) == 1
    assert split.zero_share(torch.tensor([0, 2])) == 0
    assert split.zero_share(torch.tensor([1, 3])) == pytest.approx((1 + 1 / 3) / 2)


# ------------------------------------------------------------------------------------------------------ text


def padded_by_a_loop(arrays: dict, rows: list[int]) -> tuple[list[list[int]], list[int]]:
    reviews = [arrays["tokens"][slice(*arrays["offsets"][row : row + 2])].tolist() for row in rows]
    length = max(map(len, reviews))
    while length % 16 and length < max(np.diff(arrays["offsets"])):
        length += 1
    return [review + [0] * (length - len(review)) for review in reviews], [len(review) for review in reviews]


def test_reviews_are_padded_with_zeros_to_a_multiple_of_16_or_the_longest_of_all():
    lengths = np.random.default_rng(0).integers(1, 41, 70)
    arrays = {
        "tokens": np.arange(1, lengths.sum() + 1),
        "offsets": np.concatenate([[0], lengths.cumsum()]),
        "labels": np.zeros(70, np.int64),
    }
    split = TextSplit(arrays, CPU)
    batches = [*split.training_batches(16, seeded()), *split.evaluation_batches(16)]
    assert {tokens.shape[1] for (tokens, _), _, _ in batches} == {16, 32, 40}
    assert len(batches) == 4 + 5
    for (tokens, lengths), _, rows in batches:
        expected = padded_by_a_loop(arrays, rows.tolist())
        assert (tokens.tolist(), lengths.tolist()) == expected
        assert tokens.dtype == lengths.dtype == torch.int64


def test_reviews_of_like_length_share_a_batch():
    """Lengths as skewed as real reviews'; compared with batches in a random order."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(5, 0.6, 600)), 10, 400).astype(int)
    arrays = {
        "tokens": np.ones(lengths.sum(), np.int32),
        "offsets": np.concatenate([[0], lengths.cumsum()]),
        "labels": np.zeros(600, np.int64),
    }
    split = TextSplit(arrays, CPU)

    def padded(batches) -> int:
        return sum(tokens.numel() - int(lengths.sum()) for (tokens, lengths), _, _ in batches)

    plain = (split._batch(rows) for rows in full_batches(torch.randperm(600, generator=seeded()), 16))
    assert padded(split.training_batches(16, seeded())) < 0.15 * padded(plain)


def test_short_and_long_batches_come_in_random_order():
    split = make("text", 400)
    longest = [tokens.shape[1] for (tokens, _), _, _ in split.training_batches(8, seeded())]
    assert longest != sorted(longest)
    assert abs(np.corrcoef(longest, np.arange(50))[0, 1]) < 0.4


def test_zero_share_of_reviews_counts_padding():
    split = make("text", 40)
    for (tokens, _), _, rows in split.training_batches(8, seeded()):
        assert split.zero_share(rows) == pytest.approx((tokens == 0).float().mean().item())
    assert split.zero_share(split.lengths.argmax()[None]) == 0


# ---------------------------------------------------------------------------------------------- some of a split


def examples_of(split: ImageSplit | TextSplit) -> list[tuple]:
    """Each example by itself, in the split's order: its inputs without padding, and its label."""
    found = {}
    for inputs, labels, rows in split.evaluation_batches(3):
        for index, row in enumerate(rows.tolist()):
            values = [part[index] for part in inputs]
            if len(values) == 2:  # a text and its length
                values[0] = values[0][: values[1]]
            found[row] = ([value.tolist() for value in values], labels[index].item())
    return [found[row] for row in sorted(found)]


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("rows", [[0], [4, 1, 9], list(range(20))])
def test_a_subset_has_its_examples_in_the_order_asked_for_and_leaves_the_split_alone(kind, rows):
    split = make(kind, 20)
    before = examples_of(split)
    chosen = split.subset(torch.tensor(rows))
    assert len(chosen) == len(rows)
    assert examples_of(chosen) == [before[row] for row in rows]
    assert examples_of(split) == before


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_fixed_sample_is_the_same_for_every_training_and_has_no_example_twice(kind):
    split = make(kind, 20)
    rows = sorted(np.random.default_rng(0).permutation(20)[:7].tolist())
    assert len(set(rows)) == 7
    assert examples_of(fixed_sample(split, 7)) == [examples_of(split)[row] for row in rows]
    assert examples_of(fixed_sample(split, 5_000)) == examples_of(split)  # all where there are fewer
