"""What tests that compute share."""

import pytest


@pytest.fixture
def one_thread():
    """One thread, as a training has it by default; what a training sets for its process is put back."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
