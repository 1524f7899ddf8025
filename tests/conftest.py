"""What tests that compute share."""

import os
import sys

import hypothesis
import pytest

# Before torch and NumPy are imported, here and in what tests start. There is a test process for each core: threads
# of their own would wait for each other in loops that take the cores from the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine must not fail a test, nor the first call of a library that loads slowly. Examples are the same in
# every run, so that a change fails for what it changed; `pytest --hypothesis-profile=explore` draws new ones.
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.register_profile("lrstudy", deadline=None, derandomize=True)
hypothesis.settings.load_profile("lrstudy")


@pytest.fixture(autouse=True)
def _subnormal_numbers():
    """A training has the processor take them for zero, for the whole process; no test depends on one before it."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)


@pytest.fixture
def one_thread():
    """One thread, as a training has it by default; what a training sets for its process is put back."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
