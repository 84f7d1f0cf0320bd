"""Networks that need no training: the exact denoisers of a finite data set and of a Gaussian.

Each is called like a UNet2DModel and returns what it predicts under ``.sample``, so that Denoiser and the samplers
take it as they take a trained network. The formulas are Bayes' rule, written out here and nowhere in the library.
"""
from types import SimpleNamespace

import torch
from torch import Tensor, nn


class ExactNet(nn.Module):
    """Base: turns ``mean(x_t, alpha, sigma, label)`` = E[x | x_t] into an output of the wanted kind."""

    def __init__(self, channels: int, schedule, kind: str):
        super().__init__()
        self.config = SimpleNamespace(in_channels=channels, sample_size=1)
        self.alpha, self.sigma, self.kind = schedule.alpha, schedule.sigma, kind

    def forward(self, x_t: Tensor, t: Tensor, class_labels: Tensor) -> SimpleNamespace:
        alpha, sigma = (table[t].to(x_t).reshape(-1, 1, 1, 1) for table in (self.alpha, self.sigma))
        x = self.mean(x_t, alpha, sigma, class_labels)
        if self.kind == "x":
            return SimpleNamespace(sample=x)
        eps = (x_t - alpha * x) / sigma
        return SimpleNamespace(sample=eps if self.kind == "eps" else alpha * eps - sigma * x)


class FiniteData(ExactNet):
    """Exact for data that are ``points`` (N, C), drawn with ``weights`` (N,), of the classes ``labels`` (N,)."""

    def __init__(self, points: Tensor, weights: Tensor, labels: Tensor, schedule, n_classes: int = 10, kind: str = "v"):
        super().__init__(points.shape[1], schedule, kind)
        self.points, self.weights, self.labels, self.n_classes = points, weights, labels, n_classes

    def mean(self, x_t, alpha, sigma, label):
        squares = (x_t[:, None, :, 0, 0] - alpha[:, :, 0] * self.points.to(x_t)).square().sum(2)  # (B, N)
        log_weight = self.weights.log() - squares / (2 * sigma[:, :, 0, 0] ** 2)
        other = (label[:, None] != self.labels) & (label[:, None] != self.n_classes)
        share = log_weight.masked_fill(other, -torch.inf).softmax(1)
        return (share @ self.points.to(x_t))[:, :, None, None]


class Gaussian(ExactNet):
    """Exact for one-pixel images x ~ N(mean, std²)."""

    def __init__(self, mean: float, std: float, schedule, kind: str = "v"):
        super().__init__(1, schedule, kind)
        self.m, self.s = mean, std

    def mean(self, x_t, alpha, sigma, label):
        gain = alpha * self.s**2 / (alpha**2 * self.s**2 + sigma**2)
        return self.m + gain * (x_t - alpha * self.m)
