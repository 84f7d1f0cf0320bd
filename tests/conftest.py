"""What every test file shares: quiet threads, fixed seeds, no network, and a tiny network."""
import os
import signal
import socket
from contextlib import contextmanager

os.environ["DMDKIT_FAST"] = "1"
if not os.environ.get("DMDKIT_GPU"):  # test_gpu alone is for one; the others compare with the CPU
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # exact values, also where a CPU has fast bf16

import pytest
import torch
import training_run
from torch import nn

from dmdkit import data, train
from dmdkit.denoiser import Denoiser

# Where the tests run in the background, a shell has them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # the networks here are tiny; threads that wait for each other cost more
FAKES_CUDA = torch.backends.cuda.is_built() and torch.__version__ >= "2.7"
needs_fake_cuda = pytest.mark.skipif(not FAKES_CUDA, reason=(
    "fake CUDA tensors need a PyTorch of 2.7 or later that was built with CUDA; no GPU is needed"))
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0", socket.gethostname())


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that reaches for another machine fails, whether or not the caller swallows errors."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self, address):
        if self.family != getattr(socket, "AF_UNIX", None) and address[0] not in LOOPBACK:
            pytest.fail(f"A test tried to connect to {address}.")
        return connect(self, address)

    def guarded_look_up(host, *args, **kwargs):
        if host not in (None, "", b"", *LOOPBACK):
            pytest.fail(f"A test tried to look up {host}.")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


@pytest.fixture(scope="session")
def test_images() -> data.Images:
    """MNIST's 10,000 test images."""
    return data.mnist(train=False)


def tiny_denoiser(seed: int = 0) -> Denoiser:
    """The smallest preset with random weights, for 28 × 28 images: what it draws is noise, but fast."""
    return training_run.denoiser(seed).eval()


@pytest.fixture
def tiny() -> Denoiser:
    return tiny_denoiser()


class Counted(nn.Module):
    """A network that counts its calls, and the samples that it was called with."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.config, self.calls, self.rows = net, net.config, 0, 0

    def forward(self, *args, **kwargs):
        self.calls += 1
        self.rows += len(args[0])
        return self.net(*args, **kwargs)


@contextmanager
def stopped_in_step_six(monkeypatch):
    """Inside, a training is stopped by Ctrl-C after its fifth step."""
    honest = train.train

    def interrupted(*args, **options):
        for record in honest(*args, **options | {"save_every": 2}):
            yield record
            if record.step == 5:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "train", interrupted)
        yield


@contextmanager
def refused(kind: type[Exception], pattern: str):
    """What is done inside must raise ``kind``, in one sentence that matches ``pattern``, with no other error behind."""
    with pytest.raises(kind, match=pattern) as caught:
        yield
    error = caught.value
    assert "\n" not in str(error) and (error.__context__ is None or error.__suppress_context__)
