"""What tests that compute share."""

import hypothesis
import pytest

# A busy machine must not fail a test, nor the first call of a library that loads slowly.
hypothesis.settings.register_profile("lrstudy", deadline=None)
hypothesis.settings.load_profile("lrstudy")


@pytest.fixture
def one_thread():
    """One thread, as a training has it by default; what a training sets for its process is put back."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
