"""Metrics of predictions (documented.md §8); all information is in nats."""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of right answers, from logits of shape (B, C) and labels of shape (B,)."""
    return (logits.argmax(dim=1) == labels).float().mean()


def perplexity(cross_entropy: Tensor) -> Tensor:
    """exp(mean cross-entropy): among how many equally likely symbols the model still chooses.

    V for a uniform guess over V symbols, 1 for a perfect one.
    """
    return cross_entropy.exp()


def label_entropy(counts: Tensor) -> Tensor:
    """The entropy -Σ p ln p of labels that occur `counts` times, shape (C,).

    It is the cross-entropy of a model that knows how frequent the labels are and nothing else, so one whose validation
    cross-entropy never falls below it has learnt nothing.
    """
    shares = counts.cpu().double() / counts.sum().item()  # not every device has float64
    terms: Tensor = torch.special.xlogy(shares, shares)
    return -terms.sum()
