"""K modules of one shape as rows: parameters in one matrix (K, P), each buffer in one tensor (K, …).

The modules stay ordinary: their parameters and buffers become views of the rows, so whatever is done to a row is seen
by its module, and the other way round. A slice is exported, validated alone or asked for its state as any module is.
"""

# Shapes: K = trials in the cohort, P = trained parameters of one of them.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import lightning as L
import torch
from torch import Tensor, nn

from tuner.cohort.errors import NotFusable

Groups = Sequence[Sequence[str]]
"""Names of the parameters that are trained, by the optimiser's group."""


class Rows:
    """Parameters and buffers of K modules.

    Args:
        modules: of equal structure, K of them.
        groups: the parameters that their optimisers train; all others stay as they are.

    Attributes:
        trained: shape (K, P), group after group.
        fixed: parameters that no optimiser trains, and buffers, each of shape (K, …), by name.
        ends: where each group ends among the P columns.

    Raises:
        NotFusable: the parameters are of several types or on several devices.
    """

    def __init__(self, modules: Sequence[L.LightningModule], groups: Groups) -> None:
        self.modules = list(modules)
        first = dict(modules[0].named_parameters())
        names = [name for group in groups for name in group]
        kinds = {(first[name].dtype, first[name].device) for name in names}
        if len(kinds) != 1:
            raise NotFusable("its parameters are of several types or on several devices")
        self._shapes = {name: first[name].shape for name in names}
        self._sizes = [first[name].numel() for name in names]
        self.ends = _ends([sum(first[name].numel() for name in group) for group in groups])
        self.trained = torch.stack([self._row_of(module) for module in modules])  # (K, P)
        self.fixed = {
            name: torch.stack([tensor, *(_fixed(module, self._shapes)[name] for module in modules[1:])])
            for name, tensor in _fixed(modules[0], self._shapes).items()
        }
        self._learns = {name: parameter.requires_grad for name, parameter in first.items()}
        self._views: list[dict[str, Tensor]] = [{} for _ in modules]
        for k in range(len(modules)):
            self._bind(k)

    def __len__(self) -> int:
        return len(self.modules)

    def parameters_of(self, row: Tensor) -> dict[str, Tensor]:
        """The parameters by name, as views of one row (P,)."""
        parts = row.split(self._sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def put(self, k: int, module: L.LightningModule) -> None:
        """Another module takes the place of slice k."""
        self.release(k)
        self.trained[k] = self._row_of(module)
        for name, tensor in _fixed(module, self._shapes).items():
            self.fixed[name][k] = tensor
        self.modules[k] = module
        self._bind(k)

    def release(self, k: int) -> None:
        """Give the module of slice k tensors of its own again."""
        module = self.modules[k]
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
        for name, buffer in module.named_buffers():
            _set_buffer(module, name, buffer.clone())

    def look(self, k: int) -> None:
        """Take over parameters and buffers of slice k that its own code has assigned anew.

        Raises:
            NotFusable: it has others than it had, or trains others.
        """
        module, views = self.modules[k], self._views[k]
        for name, parameter in module.named_parameters():
            if parameter.requires_grad is not self._learns.get(name):
                raise NotFusable("it changes which of its parameters are trained")
        held = dict(_tensors(module))
        if held.keys() != views.keys() or any(held[name].shape != view.shape for name, view in views.items()):
            raise NotFusable("it changes its layers")
        if any(held[name].data_ptr() != view.data_ptr() for name, view in views.items()):
            for name, view in views.items():
                view.copy_(held[name].detach())
            self._bind(k)

    def keep(self, kept: Sequence[int]) -> None:
        """Keep these slices, in this order; the other modules get tensors of their own."""
        for k in set(range(len(self))) - set(kept):
            self.release(k)
        chosen = torch.tensor(list(kept), device=self.trained.device)
        self.trained = self.trained.index_select(0, chosen)
        self.fixed = {name: tensor.index_select(0, chosen) for name, tensor in self.fixed.items()}
        self.modules = [self.modules[k] for k in kept]
        self._views = [self._views[k] for k in kept]
        for k in range(len(kept)):
            self._bind(k)

    def update(self, fixed: Mapping[str, Tensor]) -> None:
        """Take over buffers as a step has left them."""
        for name, tensor in fixed.items():
            if tensor is not self.fixed[name]:
                self.fixed[name].copy_(tensor)

    def _row_of(self, module: nn.Module) -> Tensor:
        parameters = dict(module.named_parameters())
        return torch.cat([parameters[name].detach().flatten() for name in self._shapes])

    def _bind(self, k: int) -> None:
        module = self.modules[k]
        views = self.parameters_of(self.trained[k]) | {name: tensor[k] for name, tensor in self.fixed.items()}
        for name, parameter in module.named_parameters():
            parameter.data = views[name]
            parameter.grad = None
        for name, _ in list(module.named_buffers()):
            _set_buffer(module, name, views[name])
        self._views[k] = views


def _fixed(module: nn.Module, trained: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    others = {name: p.detach() for name, p in module.named_parameters() if name not in trained}
    return others | dict(module.named_buffers())


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _set_buffer(module: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module.get_submodule(path)._buffers[leaf] = tensor


def _ends(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[: i + 1]) for i in range(len(sizes))]
