"""Networks that need no training: the exact denoisers of a finite data set and of a Gaussian.

Each is called like a UNet2DModel and returns what it predicts under ``.sample``, so that Denoiser
and the samplers take it as they take a trained network. The formulas are Bayes' rule, written out
here and nowhere in the library; they hold for any α and σ.
"""
from types import SimpleNamespace

import torch
from torch import Tensor, nn


class ExactNet(nn.Module):
    """Base: turns ``mean(x_t, alpha, sigma, label)`` = E[x | x_t] into an output of the wanted
    kind."""

    def __init__(self, channels: int, schedule, kind: str):
        super().__init__()
        self.config = SimpleNamespace(in_channels=channels, sample_size=1)
        self.alpha, self.sigma, self.kind = schedule.alpha, schedule.sigma, kind

    def forward(self, x_t: Tensor, t: Tensor, class_labels: Tensor | None = None):
        alpha = self.alpha[t].to(x_t).reshape(-1, 1, 1, 1)
        sigma = self.sigma[t].to(x_t).reshape(-1, 1, 1, 1)
        x = self.mean(x_t, alpha, sigma, class_labels)
        eps = (x_t - alpha * x) / sigma
        outputs = {"x": x, "eps": eps, "v": alpha * eps - sigma * x, "both": torch.cat([x, eps], 1)}
        return SimpleNamespace(sample=outputs[self.kind])


class FiniteData(ExactNet):
    """Exact for data that are ``points`` (N, C), drawn with ``weights`` (N,), of the classes
    ``labels`` (N,)."""

    def __init__(self, points: Tensor, weights: Tensor, labels: Tensor, schedule, kind: str = "v",
                 n_classes: int = 10):
        super().__init__(points.shape[1], schedule, kind)
        self.points, self.weights, self.labels = points, weights, labels
        self.n_classes = n_classes

    def mean(self, x_t, alpha, sigma, label):
        offset = x_t[:, None, :, 0, 0] - alpha[:, :, 0] * self.points.to(x_t)
        log_weight = self.weights.log() - offset.square().sum(2) / (2 * sigma[:, :, 0, 0] ** 2)
        if label is not None:
            other = (label[:, None] != self.labels) & (label[:, None] != self.n_classes)
            log_weight = log_weight.masked_fill(other, -torch.inf)
        return (log_weight.softmax(1) @ self.points.to(x_t))[:, :, None, None]


class Gaussian(ExactNet):
    """Exact for one-pixel images x ~ N(mean, std²)."""

    def __init__(self, mean: float, std: float, schedule, kind: str = "v"):
        super().__init__(1, schedule, kind)
        self.m, self.s = mean, std

    def mean(self, x_t, alpha, sigma, label):
        gain = alpha * self.s**2 / (alpha**2 * self.s**2 + sigma**2)
        return self.m + gain * (x_t - alpha * self.m)
