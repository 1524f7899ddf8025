"""How much faster is the study's training than the loop that everyone starts from, on the same cores?

    python benchmarks/throughput.py [--models resnet lstm] [--batches 100] [--repeats 3]
    python benchmarks/throughput.py --accuracy      # are the results as good? five seeds each, hours
    python benchmarks/throughput.py --compile       # ours with torch.compile
    python benchmarks/throughput.py --profile       # where ours spends its time
    python benchmarks/throughput.py --ceiling       # how near ours is to the processor's matrix products

Three ways to train the same network on the same data with the same batch size, optimizer and seed:

* plain: the loop of PyTorch's tutorials. A Dataset that makes a PIL image of each example (or a list of token
  ids), transforms, a DataLoader with two workers that shuffles and collates (``pad_sequence`` for text),
  float32, ``.item()`` every step, one process with all cores' threads. The Transformer is
  ``nn.TransformerEncoder`` with a padding mask and dropout.
* single: one training of ours with all cores' threads.
* all cores: one training of ours per core, a thread each, as the study runs its seeds.

The ways alternate within a repeat, each in fresh processes: an epoch to warm up, then one that counts,
validation included in both. Figures are medians over the repeats. For "all cores" the trainings wait for each
other before the epoch that counts, and the slowest one's time is everyone's.

Needs data/processed of both data sets: ``dvc repro preprocess``. Results: benchmarks/results/throughput.json
and .md, where the figures of models that are not asked for stay if they are of the same machine and versions;
of --accuracy accuracy.json and .md, where trainings that are done are kept.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np

from lrstudy.data import read_meta, read_split
from lrstudy.files import write_json
from lrstudy.recipe.cells import make_cell
from lrstudy.recipe.config import Params, load_params
from lrstudy.study.workspace import git_revision

ROOT = Path(__file__).parents[1]
MODELS = ("resnet", "resnet20", "lstm", "transformer", "transformer2")
WAYS = ("plain", "single", "all cores")
# All cores over plain.
GOALS = {"resnet": 3.0, "resnet20": 3.0, "lstm": 3.0, "transformer": 4.0, "transformer2": 4.0}
LARGEST_WORKER = 1.5e9  # bytes
LOADER_WORKERS = 2  # as in PyTorch's tutorial of CIFAR-10
ACCURACY_SEEDS = (1, 2, 3, 4, 5)


# --------------------------------------------------------------------------------------------- the plain loop


def plain_loop(settings: dict, arrays: dict[str, dict], meta: dict, before_epoch) -> list[dict]:
    """Train as PyTorch's tutorials do; a record per epoch: seconds, validation accuracy.

    Args:
        settings: as :func:`lrstudy.training.loop.train` takes them.
        arrays: the training and the validation split.
        before_epoch: called with the number of epochs done.
    """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from lrstudy.recipe.optimizers import make_optimizer
    from lrstudy.schedules import as_torch_scheduler, make_schedule
    from lrstudy.training.devices import choose_device

    device = choose_device(settings["device"])
    torch.manual_seed(settings["seed"])
    model = plain_model(settings["model"], meta).to(device)
    options = dict(settings["optimizer"])
    optimizer = make_optimizer(options.pop("name"), model, **options)
    criterion = nn.CrossEntropyLoss()
    make_dataset, collate = (Images, None) if meta["kind"] == "image" else (Reviews, pad)
    loaders = {
        name: DataLoader(
            make_dataset(split, meta),
            batch_size=settings["batch_size"],
            shuffle=name == "train",
            drop_last=name == "train",
            num_workers=LOADER_WORKERS,
            collate_fn=collate,
        )
        for name, split in arrays.items()
    }
    schedule = make_schedule(
        settings["schedule"]["function"], settings["num_epochs"], **settings["schedule"]["parameters"]
    )
    scheduler = as_torch_scheduler(optimizer, schedule, steps_per_epoch=len(loaders["train"]))
    records = []
    for epoch in range(settings["num_epochs"]):
        before_epoch(epoch)
        started = time.perf_counter()
        model.train()
        running_loss = 0.0
        for *inputs, labels in loaders["train"]:
            inputs, labels = [part.to(device) for part in inputs], labels.to(device)
            optimizer.zero_grad()
            loss = criterion(model(*inputs), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
            running_loss += loss.item()
        model.eval()
        correct = total = 0
        with torch.no_grad():
            for *inputs, labels in loaders["validation"]:
                inputs, labels = [part.to(device) for part in inputs], labels.to(device)
                correct += (model(*inputs).argmax(dim=1) == labels).sum().item()
                total += len(labels)
        records.append(
            {
                "seconds": time.perf_counter() - started,
                "train/loss": running_loss / len(loaders["train"]),
                "validation/accuracy": correct / total,
            }
        )
    return records


class Images:
    """Examples (normalized image (3, 32, 32), label), by way of PIL as in torchvision's CIFAR10."""

    def __init__(self, split: dict[str, np.ndarray], meta: dict):
        from torchvision import transforms

        self.images, self.labels = split["images"], split["labels"]
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(meta["mean"], meta["std"])]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class Reviews:
    """Examples (token ids (length,), label)."""

    def __init__(self, split: dict[str, np.ndarray], meta: dict):
        self.tokens, self.offsets, self.labels = split["tokens"], split["offsets"], split["labels"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        import torch

        start, end = self.offsets[index : index + 2]
        return torch.from_numpy(self.tokens[start:end].astype(np.int64)), int(self.labels[index])


def pad(examples: list[tuple]):
    """Token ids padded with 0 to the longest (batch, length), lengths (batch,), labels (batch,)."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    tokens, labels = zip(*examples, strict=True)
    lengths = torch.tensor([len(review) for review in tokens])
    return pad_sequence(list(tokens), batch_first=True), lengths, torch.tensor(labels)


def plain_model(sizes: dict, meta: dict):
    """The study's network; for the Transformer the same sizes with ``nn.TransformerEncoder``."""
    import torch
    from torch import nn

    from lrstudy.recipe.models import WordDropout, make_embedding, make_model

    if sizes["architecture"] != "transformer":
        return make_model(sizes, meta)

    class PlainTransformer(nn.Module):
        def __init__(self):
            super().__init__()
            size = sizes["embedding_size"]
            self.embedding = make_embedding(meta["vocab_size"], size)
            self.position = nn.Embedding(meta["max_length"], size)
            nn.init.normal_(self.position.weight, std=size**-0.5)
            layer = nn.TransformerEncoderLayer(
                size,
                sizes["num_heads"],
                sizes["feedforward_size"],
                sizes["dropout"],
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            self.encoder = nn.TransformerEncoder(
                layer, sizes["num_layers"], nn.LayerNorm(size), enable_nested_tensor=False
            )
            self.dropout = nn.Dropout(sizes["dropout"])
            self.word_dropout = WordDropout(sizes["word_dropout"])
            self.classifier = nn.Linear(size, meta["num_classes"])

        def forward(self, tokens, lengths):
            positions = torch.arange(tokens.shape[1], device=tokens.device)
            padded = positions >= lengths[:, None]
            x = self.dropout(self.embedding(self.word_dropout(tokens)) + self.position(positions))
            x = self.encoder(x, src_key_padding_mask=padded)
            x = x.masked_fill(padded[..., None], 0.0).sum(dim=1) / lengths[:, None]
            return self.classifier(self.dropout(x))

    return PlainTransformer()


# ----------------------------------------------------------------------------------------------------- ours


def our_loop(settings: dict, arrays: dict[str, dict], meta: dict, before_epoch) -> list[dict]:
    """Train as the study does; its records, one per epoch."""
    import torch

    from lrstudy.training.batches import make_split
    from lrstudy.training.devices import choose_device
    from lrstudy.training.loop import train

    torch.set_flush_denormal(True)
    device = choose_device(settings["device"])
    splits = [make_split(arrays[name], meta, device) for name in ("train", "validation")]
    before_epoch(0)

    def after(record: dict, checkpoint) -> None:
        if record["epoch"] < settings["num_epochs"]:
            before_epoch(record["epoch"])

    return train(settings, *splits, meta, on_epoch=after).epochs


def run(job: dict) -> dict:
    """One training in this process: its records, the examples of an epoch, this process' peak memory."""
    import torch

    from lrstudy.training.batches import take_share
    from lrstudy.training.measures import num_steps

    settings, meta = job["settings"], read_meta(job["data"])
    torch.set_num_threads(settings["threads"])
    arrays = {name: take_share(read_split(job["data"], name), share) for name, share in job["shares"].items()}
    loop = plain_loop if job["way"] == "plain" else our_loop
    records = loop(settings, arrays, meta, _wait_before_the_last(settings["num_epochs"]))
    count = len(arrays["train"]["labels"])
    steps = num_steps(count, settings["batch_size"])
    return {
        "records": [{k: v for k, v in r.items() if k != "steps"} for r in records],
        "examples": steps * min(settings["batch_size"], count),
        "peak_bytes": peak_bytes(),
    }


_barrier = None


def _join(barrier) -> None:
    global _barrier
    _barrier = barrier


def _wait_before_the_last(num_epochs: int):
    def before_epoch(done: int) -> None:
        if _barrier is not None and done == num_epochs - 1:
            _barrier.wait()

    return before_epoch


def peak_bytes() -> int:
    """The most memory that this process ever had resident (since its exec, where the system says it)."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        import resource

        unit = 1 if platform.system() == "Darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def in_fresh_processes(job: dict, seeds: list[int]) -> list[dict]:
    """The same job with each seed, each in its own process; they begin their last epochs together."""
    context = get_context("spawn")
    barrier = context.Barrier(len(seeds))
    with ProcessPoolExecutor(len(seeds), mp_context=context, initializer=_join, initargs=(barrier,)) as pool:
        return list(pool.map(run, [job | {"settings": job["settings"] | {"seed": s}} for s in seeds]))


# ---------------------------------------------------------------------------------------------- throughput


def composed(models: list[str], schedule: str) -> Params:
    """What conf/ says of the models, whatever params.yaml has at the moment."""
    from lrstudy.compose import compose

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        # As fast as the machine can: the preset's float32 is there for machines without bfloat16.
        overrides = [f"model=[{','.join(models)}]", f"schedule={schedule}", "train.precision=auto"]
        compose(ROOT, path, overrides)
        return load_params(path)


def job_of(params: Params, model: str, schedule: str, way: str, arguments: argparse.Namespace) -> dict:
    """What :func:`run` needs for one way of training ``model``, with the study's own settings."""
    cell = make_cell(params, model, schedule)
    data = arguments.data / cell.dataset
    steps = max(1, read_meta(data)["num_examples"]["train"] // cell.batch_size)
    share = min(1.0, arguments.batches / steps) if arguments.batches else 1.0
    settings = cell.settings() | {
        "threads": 1 if way == "all cores" or arguments.accuracy else arguments.cores,
        "device": arguments.device,
        "augment": "none",
        "gradient_clip": None,
        "compile": arguments.compile,
    }
    if not arguments.accuracy:
        settings["num_epochs"] = 2  # one to warm up, one that counts
    shares = {"train": share, "validation": 1.0 if arguments.accuracy else share}
    return {"way": way, "settings": settings, "data": str(data), "shares": shares}


def throughput(params: Params, model: str, arguments: argparse.Namespace) -> dict:
    """Examples a second, epochs a minute and peak memory of each way: every repeat and the medians."""
    found: dict[str, list[dict]] = {way: [] for way in WAYS}
    for repeat in range(arguments.repeats):
        for way in WAYS:
            job = job_of(params, model, "static", way, arguments)
            seeds = [1 + n for n in range(arguments.cores if way == "all cores" else 1)]
            results = in_fresh_processes(job, seeds)
            seconds = max(result["records"][-1]["seconds"] for result in results)
            examples = sum(result["examples"] for result in results)
            full = read_meta(job["data"])["num_examples"]["train"]
            found[way].append(
                {
                    "examples_per_second": examples / seconds,
                    "epochs_per_minute": 60 * examples / seconds / full,
                    "peak_bytes_of_a_process": max(result["peak_bytes"] for result in results),
                    "seconds": seconds,
                    "examples": examples,
                }
            )
            rate = found[way][-1]["examples_per_second"]
            print(f"{model:<12} repeat {repeat + 1} {way:<10} {rate:8,.0f} examples/s", file=sys.stderr)
    medians = {
        way: {name: median(r[name] for r in repeats) for name in repeats[0]} for way, repeats in found.items()
    }
    rates = {way: medians[way]["examples_per_second"] for way in WAYS}
    peak = max(r["peak_bytes_of_a_process"] for way in WAYS[1:] for r in found[way])
    return {
        "settings": {way: job_of(params, model, "static", way, arguments)["settings"] for way in WAYS},
        "repeats": found,
        "median": medians,
        "single_over_plain": rates["single"] / rates["plain"],
        "all_cores_over_plain": rates["all cores"] / rates["plain"],
        "goal": GOALS[model],
        "peak_bytes_of_a_process": peak,
        "peak_goal_bytes": LARGEST_WORKER,
        "data": read_meta(job["data"])["label"],
    }


def machine(arguments: argparse.Namespace) -> dict:
    """What the figures belong to."""
    import torch

    from lrstudy.training.devices import choose_device, has_native_bfloat16

    device = choose_device(arguments.device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": arguments.cores,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": os.getloadavg()[0],
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "native_bfloat16": has_native_bfloat16(device),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
        "commit": git_revision(),
        "batches_per_epoch": arguments.batches or "all",
        "repeats": arguments.repeats,
        "loader_workers": LOADER_WORKERS,
    }


def table(found: dict) -> str:
    """The figures in Markdown, with the machine."""
    about = found["machine"]
    lines = [
        f"{about['processor']} ({about['instructions']}), {about['cores']} cores, {about['memory_gib']} GiB, "
        f"device {about['device']}, {'' if about['native_bfloat16'] else 'no '}bfloat16 in hardware; torch "
        f"{about['torch']}, Python {about['python']}. Medians of {about['repeats']}; "
        f"{about['batches_per_epoch']} batches an epoch, validation included.",
        "",
        "| model | data | way | processes x threads | examples/s | epochs/min | peak of a process, MB "
        "| against plain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, result in found["models"].items():
        plain = result["median"]["plain"]["examples_per_second"]
        for way in WAYS:
            middle = result["median"][way]
            threads = result["settings"][way]["threads"]
            processes = about["cores"] if way == "all cores" else 1
            lines.append(
                f"| {model} | {result['data']} | {way} | {processes} x {threads} "
                f"| {middle['examples_per_second']:,.0f} | {middle['epochs_per_minute']:.2f} "
                f"| {middle['peak_bytes_of_a_process'] / 1e6:,.0f} "
                f"| {middle['examples_per_second'] / plain:.2f} |"
            )
    lines += [""] + [
        f"{model}: all cores {result['all_cores_over_plain']:.2f} times plain (goal: {result['goal']:g}, "
        f"{_reached(result['all_cores_over_plain'] >= result['goal'])}), at most "
        f"{result['peak_bytes_of_a_process'] / 1e6:,.0f} MB a process (goal: under "
        f"{result['peak_goal_bytes'] / 1e6:,.0f}, "
        f"{_reached(result['peak_bytes_of_a_process'] < result['peak_goal_bytes'])}); commit "
        f"{result['commit'][:10]}, load average at the start {result['load_before']:.1f}"
        + ("." if result["load_before"] <= about["cores"] / 4 else ": other work, not to be quoted.")
        for model, result in found["models"].items()
    ]
    return "\n".join(lines) + "\n"


def _reached(goal: bool) -> str:
    return "reached" if goal else "not reached"


# ------------------------------------------------------------------------------------------------- accuracy


def accuracy(params: Params, models: list[str], arguments: argparse.Namespace) -> None:
    """Train five seeds each way to the end; keeps every training as it ends, so that it can go on."""
    import torch

    from lrstudy.training.devices import choose_device, choose_dtype

    output = arguments.output.with_name("accuracy.json")
    found = json.loads(output.read_text()) if output.exists() else {"runs": {}}
    left = []
    for model in models:
        for way in ("plain", "ours"):
            job = job_of(params, model, "cosine", way, arguments)
            meta, settings = read_meta(job["data"]), dict(job["settings"])
            share = job["shares"]["train"]
            data = f"{share:.4f} of {meta['fingerprint'][:12]}"
            if way == "plain":  # what that loop does not know
                settings |= {"precision": "float32", "compile": False}
            dtype = choose_dtype(settings["precision"], choose_device(arguments.device))
            settings["precision"] = str(dtype).removeprefix("torch.")
            name = f"{model} {way} {data} {json.dumps(settings, sort_keys=True)}"
            runs = found["runs"].setdefault(
                name,
                {
                    "model": model,
                    "way": way,
                    "data": meta["label"],
                    "examples": round(share * meta["num_examples"]["train"]),
                    "epochs": settings["num_epochs"],
                    "precision": settings["precision"],
                    "instructions": torch.backends.cpu.get_cpu_capability(),
                    "commit": git_revision(),
                    "seeds": {},
                },
            )
            left += [(runs, job, seed) for seed in ACCURACY_SEEDS if str(seed) not in runs["seeds"]]
    left.sort(key=lambda task: task[2])  # so that both ways have the same seeds if it is stopped
    with ProcessPoolExecutor(arguments.cores, get_context("spawn"), max_tasks_per_child=1) as pool:
        under_way = {
            pool.submit(run, job | {"settings": job["settings"] | {"seed": seed}}): (runs, seed)
            for runs, job, seed in left
        }
        for done in as_completed(under_way):
            runs, seed = under_way[done]
            last = done.result()["records"][-1]["validation/accuracy"]
            runs["seeds"][str(seed)] = last
            write_json(output, found)
            print(f"{runs['model']:<12} {runs['way']:<6} seed {seed} accuracy {last:.4f}", file=sys.stderr)
    output.with_suffix(".md").write_text(accuracy_table(found))
    print(accuracy_table(found))


def accuracy_table(found: dict) -> str:
    """Mean accuracies of both ways, and Welch's 95% interval of ours less plain; ways have other draws."""
    from scipy.stats import ttest_ind

    lines = [
        "Validation accuracy after the last epoch, in percent; cosine schedule. Intervals are Welch's.",
        "",
        "| model | data | examples an epoch | epochs | seeds | plain, float32 | ours | in "
        "| ours less plain (95%) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    by_budget: dict[tuple, dict[str, dict]] = {}
    for runs in found["runs"].values():
        budget = (runs["model"], runs["data"], runs["examples"], runs["epochs"])
        by_budget.setdefault(budget, {})[runs["way"]] = runs
    for (model, data, examples, epochs), ways in by_budget.items():
        if len(ways) < 2:
            continue
        plain, ours = (100 * np.array(list(ways[way]["seeds"].values())) for way in ("plain", "ours"))
        interval = ttest_ind(ours, plain, equal_var=False).confidence_interval()
        lines.append(
            f"| {model} | {data} | {examples:,} | {epochs} | {len(plain)} and {len(ours)} "
            f"| {plain.mean():.2f} | {ours.mean():.2f} | {ways['ours']['precision']} "
            f"| {ours.mean() - plain.mean():+.2f} ({interval.low:+.2f} to {interval.high:+.2f}) |"
        )
    return "\n".join(lines) + "\n"


# -------------------------------------------------------------------------------------------------- profile


def profile(job: dict, rows: int = 20) -> str:
    """Where our loop's time goes: the operators that take most of their own, of one epoch after a first."""
    import torch
    from torch.profiler import ProfilerActivity

    torch.set_num_threads(job["settings"]["threads"])
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    profiler = torch.profiler.profile(activities=activities)

    def before_epoch(done: int) -> None:
        if done == 1:
            profiler.start()

    meta = read_meta(job["data"])
    from lrstudy.training.batches import take_share

    arrays = {name: take_share(read_split(job["data"], name), share) for name, share in job["shares"].items()}
    our_loop(job["settings"] | {"seed": 1}, arrays, meta, before_epoch)
    profiler.stop()
    return profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=rows)


# -------------------------------------------------------------------------------------------------- ceiling


def multiply(size: int = 1024, seconds: float = 5.0) -> float:
    """FLOP/s of float32 matrix products on one thread; the processes begin together."""
    import torch

    torch.set_num_threads(1)
    a, b = torch.randn(size, size), torch.randn(size, size)
    c = a @ b
    _barrier.wait()
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        torch.mm(a, b, out=c)
        count += 1
    return 2 * size**3 * count / passed


def operations(job: dict) -> float:
    """FLOP of convolutions and matrix products per training example, forward and backward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lrstudy.recipe.models import make_model
    from lrstudy.training.batches import make_split

    meta, settings = read_meta(job["data"]), job["settings"]
    count = settings["batch_size"]
    arrays = {name: values[:count] for name, values in read_split(job["data"], "train").items()}
    split = make_split(arrays, meta, torch.device("cpu"))
    model = make_model(settings["model"], meta)
    inputs, labels, _ = next(split.evaluation_batches(count))
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(model(*inputs), labels).backward()
    return counter.get_total_flops() / count


def ceiling(params: Params, models: list[str], arguments: argparse.Namespace) -> None:
    """Print the arithmetic rate of "all cores" beside that of bare matrix products on as many processes.

    For the networks of images: torch does not count the operations of a fused LSTM, and how many a review
    takes depends on the reviews it is batched with.
    """
    context = get_context("spawn")
    barrier = context.Barrier(arguments.cores)
    with ProcessPoolExecutor(arguments.cores, context, initializer=_join, initargs=(barrier,)) as pool:
        bare = sum(task.result() for task in [pool.submit(multiply) for _ in range(arguments.cores)])
    measured = json.loads(arguments.output.read_text())["models"]
    print(f"matrix products of 1024 x 1024 float32, {arguments.cores} x 1 thread: {bare / 1e9:.0f} GFLOP/s\n")
    print("| model | MFLOP an example | all cores, examples/s | GFLOP/s | of the matrix products' |")
    print("|---|---|---|---|---|")
    for model in models:
        job = job_of(params, model, "static", "all cores", arguments)
        if read_meta(job["data"])["kind"] != "image" or model not in measured:
            continue
        each, rate = operations(job), measured[model]["median"]["all cores"]["examples_per_second"]
        speed, share = each * rate / 1e9, each * rate / bare
        print(f"| {model} | {each / 1e6:.0f} | {rate:,.0f} | {speed:.0f} | {share:.0%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--batches", type=int, help="per epoch, 0: the whole training split (default: 100, with --accuracy 0)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="default: all")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="cpu")
    parser.add_argument("--data", type=Path, default=Path("data/processed"))
    parser.add_argument("--compile", action="store_true", help="ours with torch.compile")
    parser.add_argument("--accuracy", action="store_true", help="five seeds each way, to the end")
    parser.add_argument("--profile", action="store_true", help="print where one training of ours spends time")
    parser.add_argument("--ceiling", action="store_true", help="compare what was measured with bare products")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/throughput.json")
    arguments = parser.parse_args()
    if arguments.batches is None:
        arguments.batches = 0 if arguments.accuracy else 100
    params = composed(arguments.models, "cosine" if arguments.accuracy else "static")
    if arguments.accuracy:
        accuracy(params, arguments.models, arguments)
        return
    if arguments.ceiling:
        ceiling(params, arguments.models, arguments)
        return
    if arguments.profile:
        for model in arguments.models:
            print(f"{model}\n{profile(job_of(params, model, 'static', 'all cores', arguments))}")
        return
    about = machine(arguments)
    occasion = {name: about.pop(name) for name in ("commit", "load_before")}
    found = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    if found.get("machine") != about:  # other models' figures from elsewhere don't stand beside these
        found = {"machine": about, "models": {}}
    for model in arguments.models:
        found["models"][model] = throughput(params, model, arguments) | occasion
        write_json(arguments.output, found)
        arguments.output.with_suffix(".md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
