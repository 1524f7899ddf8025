"""From raw splits to tensors: cut the validation split, count, tokenize, write.

``preprocess`` writes one safetensors file per split with a ``meta.json``, written last; :mod:`lrstudy.data`
reads them back. Everything that is learned from data (channel means, vocabulary) comes from the train split
alone.
"""

import hashlib
import json
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lrstudy.checked import refused
from lrstudy.data import SPLITS, read_meta, read_split
from lrstudy.data.raw import OFFICIAL_SPLITS, content_digests, digest, read_rows
from lrstudy.data.records import DataMeta, RawSplit, Source
from lrstudy.errors import StudyError
from lrstudy.files import write_atomically
from lrstudy.recipe.dataset import Split

PAD, UNKNOWN = "[PAD]", "[UNK]"  # token ids 0 and 1


def preprocess(
    raw: Path,
    folder: Path,
    *,
    validation_fraction: float = 0.1,
    split_seed: int = 0,
    limit: int | None = None,
    vocab_size: int = 10_000,
    max_length: int = 256,
) -> dict[str, Any]:
    """Turn what ``download`` left in ``raw`` into tensors in ``folder`` and return what ``meta.json`` says.

    Images: ``images`` uint8 (N, height, width, channels). Text: ``tokens`` int32 (total,), ``offsets`` int64
    (N + 1,), no padding. Both: ``labels`` int64 (N,) and ``index`` int64 (N,), the row in the official split.
    ``limit`` keeps that many examples of each official split, stratified. Copies of an example are on one
    side of the cut between train and validation; the official test split stays as it is. The same input
    gives the same bytes.
    """
    source = _read_source(raw)
    layout = source.layout
    data: dict[Split, np.ndarray | list[str]] = {}
    labels: dict[Split, np.ndarray] = {}
    rows: dict[Split, np.ndarray] = {}
    for part in OFFICIAL_SPLITS:
        path, where = raw / f"{part}.parquet", f"{source.label}, {part}"
        data[part], labels[part], _ = read_rows(path, layout, source.files[part].rows, where)
        rows[part] = np.arange(len(labels[part]))
        if limit is not None and limit < len(rows[part]):
            rows[part] = stratified_choice(labels[part], limit, split_seed)
    limited = any(len(rows[split]) < len(labels[split]) for split in OFFICIAL_SPLITS)
    copies = {split: content_digests([data[split][row] for row in rows[split]]) for split in OFFICIAL_SPLITS}
    chosen = validation_choice(
        labels["train"][rows["train"]],
        copies["train"],
        round(validation_fraction * len(rows["train"])),
        split_seed,
    )
    index = {
        "train": np.delete(rows["train"], chosen),
        "validation": rows["train"][chosen],
        "test": rows["test"],
    }
    official: dict[str, Split] = {"train": "train", "validation": "train", "test": "test"}
    num_classes = len(layout.class_names)
    counts = {
        split: np.bincount(labels[official[split]][index[split]], minlength=num_classes).tolist()
        for split in SPLITS
    }
    if empty := [split for split in SPLITS if 0 in counts[split]]:
        raise StudyError(
            f"{source.label}: a class has no example in {', '.join(empty)} (per class: {counts}); "
            f"change data.validation_fraction ({validation_fraction}) or raise data.limit ({limit})."
        )
    tensors = {
        split: {"labels": labels[official[split]][index[split]], "index": index[split].astype(np.int64)}
        for split in SPLITS
    }
    tokenizer, shape = None, {}
    learned: dict[str, Any]
    if layout.kind == "image":
        for split in SPLITS:
            tensors[split]["images"] = data[official[split]][index[split]]
        mean, std = channel_statistics(tensors["train"]["images"])
        if 0 in std:
            raise StudyError(
                f"{source.label}: channel {std.index(0)} has one value in all pixels of the training "
                "images, so it cannot be normalized; leave it out (channels: 1)."
            )
        learned = {"mean": mean, "std": std}
        height, width, channels = tensors["train"]["images"].shape[1:]
        shape = {"image_size": [height, width], "in_channels": channels}
    else:
        texts = {split: [data[official[split]][row] for row in index[split]] for split in SPLITS}
        tokenizer = train_tokenizer(texts["train"], vocab_size)
        lengths: dict[str, np.ndarray] = {}
        for split in SPLITS:
            tensors[split]["tokens"], tensors[split]["offsets"], lengths[split] = encode(
                tokenizer, texts[split], max_length
            )
        quantiles = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
        learned = {
            "vocab_size": tokenizer.get_vocab_size(),
            "max_length": max_length,
            # of the train split in tokens, before the cut at max_length
            "length_quantiles": {
                f"{q:g}": float(np.quantile(lengths["train"], q, method="lower")) for q in quantiles
            },
            "share_truncated": float(np.mean(lengths["train"] > max_length)),
            "share_unknown_validation": float(np.mean(tensors["validation"]["tokens"] == 1)),
        }
    vocabulary = tokenizer.to_str() if tokenizer else None
    meta = {
        "dataset": source.dataset,
        "kind": layout.kind,
        "label": f"{source.label}, {limit:,} per split" if limited else source.label,
        "source": source.source,
        "official": source.official,
        "encoding": source.encoding,
        "revision": source.revision,
        "num_classes": num_classes,
        "class_names": layout.class_names,
        "num_examples": {split: len(index[split]) for split in SPLITS},
        "class_counts": counts,
        "duplicates": duplicates(np.delete(copies["train"], chosen), copies["train"][chosen], copies["test"]),
        **shape,
        **learned,
        "split_seed": split_seed,
        "validation_fraction": validation_fraction,
        "limit": limit,
        "fingerprint": fingerprint(
            tensors, vocabulary, {"kind": layout.kind, "num_classes": num_classes} | learned
        ),
        "raw": {split: source.files[split].sha256 for split in OFFICIAL_SPLITS},
    }
    _write_processed(folder, tensors, vocabulary, meta)
    return meta


def _read_source(raw: Path) -> Source:
    """``source.json`` of a raw folder, after checking that the files beside it are those it speaks of."""
    stage = f"download@{raw.name}"
    source = Source.read(raw / "source.json", stage)
    for split, entry in source.files.items():
        path = raw / f"{split}.parquet"
        actual = digest(path, "sha256") if path.is_file() else "nothing"
        if actual != entry.sha256:
            raise refused(path, stage, f"found {actual}, but source.json speaks of SHA-256 {entry.sha256}")
    return source


def stratified_choice(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """``size`` positions drawn from ``labels`` (N,) without replacement, ascending, each class by its share.

    Class c gives size * N_c / N positions, rounded by largest remainder so that they add up to ``size``.
    """
    drawn = [order[:count] for order, count in _stratified_orders(labels, size, seed)]
    return np.sort(np.concatenate(drawn)) if drawn else np.empty(0, int)


def _stratified_orders(labels: np.ndarray, size: int, seed: int) -> list[tuple[np.ndarray, int]]:
    """For each class its positions in random order, and how many of them ``size`` examples take."""
    classes, counts = np.unique(labels, return_counts=True)
    if not 0 <= size <= len(labels):
        raise StudyError(f"cannot draw {size:,} of {len(labels):,} examples.")
    exact = size * counts / max(len(labels), 1)
    sizes = np.floor(exact).astype(int)
    sizes[np.argsort(sizes - exact, kind="stable")[: size - sizes.sum()]] += 1
    generator = np.random.default_rng(seed)
    return [
        (generator.permutation(np.flatnonzero(labels == c)), int(n))
        for c, n in zip(classes, sizes, strict=True)
    ]


def validation_choice(labels: np.ndarray, copies: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Like :func:`stratified_choice`, but all copies of an example are chosen, or none.

    Examples are taken class by class in the random order of ``stratified_choice``, each with all its copies,
    as long as its class has room for them. So without copies both choose the same. Copies under several
    labels are not chosen. A class gets fewer than its share where no example is left that fits.

    Args:
        labels: int (N,).
        copies: (N,), equal where examples are copies of each other, as :func:`content_digests` gives them.
        size: how many to choose.
        seed: of the order.

    Returns:
        Positions, ascending: at most ``size``.
    """
    positions: dict[Hashable, list[int]] = {}
    for position, content in enumerate(copies):
        positions.setdefault(content, []).append(position)
    chosen: set[int] = set()
    for order, room in _stratified_orders(labels, size, seed):
        for position in order:
            if room == 0:
                break
            together = positions[copies[position]]
            if position not in chosen and len(together) <= room and len(set(labels[together])) == 1:
                chosen.update(together)
                room -= len(together)
    return np.array(sorted(chosen), int)


def duplicates(train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> dict[str, int]:
    """How many examples are copies of others, from :func:`content_digests` of each split.

    Returns:
        ``train``: examples whose content stands in train before them, and so ``validation`` and ``test``;
        ``validation_in_train``, ``test_in_train``, ``test_in_validation``: examples of the former split whose
        content stands in the latter.
    """
    within = {"train": train, "validation": validation, "test": test}
    distinct = {split: set(contents) for split, contents in within.items()}
    return {split: len(contents) - len(distinct[split]) for split, contents in within.items()} | {
        f"{split}_in_{other}": sum(content in distinct[other] for content in within[split])
        for split, other in (("validation", "train"), ("test", "train"), ("test", "validation"))
    }


def read_examples(raw: Path, folder: Path, split: str) -> tuple[np.ndarray | list[str], np.ndarray]:
    """The examples of a processed split, in its order: whole texts, as they were before they became tokens.

    Args:
        raw: what ``download`` left.
        folder: what :func:`preprocess` made of it.
        split: train, validation or test.

    Returns:
        Images uint8 (N, height, width, channels) or texts, and labels int64 (N,).

    Raises:
        StudyError: either folder is not what its stage writes, or ``folder`` was made from other raw files.
    """
    arrays, meta = read_split(folder, split), read_meta(folder)
    if meta["kind"] == "image":
        return arrays["images"], arrays["labels"]  # pixels are kept as they came
    source = _read_source(raw)
    official: RawSplit = "test" if split == "test" else "train"
    entry, stage = source.files[official], f"preprocess@{folder.name}"
    if meta.get("raw", {}).get(official) != entry.sha256:
        raise refused(folder, stage, f"made from other files than those in {raw}")
    texts, labels, _ = read_rows(
        raw / f"{official}.parquet", source.layout, entry.rows, f"{source.label}, {official}"
    )
    index = arrays["index"]
    if index.min() < 0 or index.max() >= len(labels) or (labels[index] != arrays["labels"]).any():
        raise refused(folder, stage, f"{split} has other labels than its rows in {raw}")
    return [texts[row] for row in index], arrays["labels"]


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of uint8 images (N, H, W, 3), as fractions of 255."""
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[-1]):
        # from the histogram: exact, and without a float copy of the whole split
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        centre = float(share @ values)
        mean.append(centre)
        std.append(float(np.sqrt(share @ (values - centre) ** 2)))
    return mean, std


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A word-level ``tokenizers.Tokenizer`` of the ``vocab_size`` most frequent words of ``texts``.

    Lower case, line-break tags removed, punctuation apart. Id 0 is ``[PAD]``, id 1 ``[UNK]``. Words that
    occur once stay out, so that ``[UNK]`` is trained even where the vocabulary could hold every word.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel({}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"(?i)<br\s*/?>"), " "), normalizers.NFC(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        texts,
        trainers.WordLevelTrainer(
            vocab_size=vocab_size, min_frequency=2, special_tokens=[PAD, UNKNOWN], show_progress=False
        ),
    )
    return tokenizer


def encode(tokenizer: Any, texts: list[str], max_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids int32 (total,), offsets int64 (N + 1,) and lengths before the cut at ``max_length`` (N,).

    Text i is ``tokens[offsets[i]:offsets[i + 1]]``; a text without any token becomes one ``[UNK]``.
    """
    unknown_id = tokenizer.token_to_id(UNKNOWN)
    tokens, kept, lengths = [], [0], []
    for start in range(0, len(texts), 1000):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + 1000]):
            ids = encoding.ids or [unknown_id]
            lengths.append(len(ids))
            tokens.append(np.asarray(ids[:max_length], np.int32))
            kept.append(len(tokens[-1]))
    return np.concatenate(tokens), np.cumsum(kept, dtype=np.int64), np.asarray(lengths)


def fingerprint(
    tensors: dict[str, dict[str, np.ndarray]], vocabulary: str | None = None, facts: dict | None = None
) -> str:
    """SHA-256 over names, types, shapes and content of all tensors of all splits, the tokenizer, and facts.

    ``facts``: what else of meta.json a training uses: numbers that normalize images or size a network.
    """
    total = hashlib.sha256()
    for split in sorted(tensors):
        for name, tensor in sorted(tensors[split].items()):
            total.update(f"{split}/{name} {tensor.dtype} {tensor.shape}\n".encode())
            total.update(np.ascontiguousarray(tensor).data)
    total.update((vocabulary or "").encode())
    total.update(json.dumps(facts or {}, sort_keys=True).encode())
    return total.hexdigest()


def _write_processed(folder: Path, tensors: dict, vocabulary: str | None, meta: dict) -> None:
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    # meta.json goes first and comes back last: without it the folder counts as incomplete
    (folder / "meta.json").unlink(missing_ok=True)
    (folder / "tokenizer.json").unlink(missing_ok=True)
    for split in SPLITS:
        write_atomically(folder / f"{split}.safetensors", save(tensors[split]))
    if vocabulary is not None:
        write_atomically(folder / "tokenizer.json", vocabulary)
    DataMeta.write_values(folder / "meta.json", meta)
