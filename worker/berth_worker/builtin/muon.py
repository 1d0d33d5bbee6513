"""The optimizer for the layers' matrices: it makes lookup form in a fraction of the steps that AdamW needs."""

from typing import Any

import torch


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized (Jordan et al. 2024, the quintic Newton-Schulz iteration), for matrices.

    torch's own computes in bfloat16, which takes longer on a CPU than the rest of a step; here matrices of one shape go
    together, in fp32.
    """

    def __init__(
        self, params: list[torch.nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.02
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update; `closure` is of no use here."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for param in group["params"]:
                shapes.setdefault(param.shape, []).append(param)
            for alike in shapes.values():
                self._update(alike, group)

    def _update(self, params: list[torch.nn.Parameter], group: dict[str, Any]) -> None:
        pushes = []
        for param in params:
            gradient = param.grad if param.grad is not None else torch.zeros_like(param)
            buffer = self.state[param].setdefault("buffer", torch.zeros_like(param))
            buffer.lerp_(gradient, 1 - group["momentum"])
            pushes.append(gradient.lerp(buffer, group["momentum"]))
        rows, columns = params[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        for param, update in zip(params, orthogonal(torch.stack(pushes)), strict=True):
            param.mul_(1 - group["lr"] * group["decay"])
            param.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """`matrices` [n, rows, columns], fp32, each with all singular values brought near one."""
    tall = matrices.shape[1] > matrices.shape[2]
    x: torch.Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x.mT if tall else x
