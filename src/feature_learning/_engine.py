r"""The step of `mfld.langevin_step`, for speed: many runs on one leading axis, in torch, on a CPU or a GPU.

It computes the same numbers, which a test holds it to, by four turns of the formula.

* tanh(u) = 2 s(2 u) - 1 with the sigmoid s: PyTorch has a fast sigmoid on every processor. The 2 goes into the data,
  and 1 - tanh^2 = 4 (s - s^2).
* The offset c is one more weight, that of one more example (0, ..., 0, 1): two products of matrices hold everything.
* The label goes into the data as well: with the margin q_j = y_j f(z_j) the slope is -y_j s(-q_j) / n.
* All factors that stay the same are multiplied once, into `down`, and buffers are made once.

Threads are PyTorch's own, and so is the generator of the noise: nothing of the process is set or changed.
"""

import warnings
from functools import partial

import numpy as np
import torch

from ._checks import choice

KEPT = 2**26  # hidden values kept from the first half of a step to the second; of more, each is computed twice
AT_ONCE = 2**22  # in blocks of so many
SMALL = 2**18  # multiplications in a product; of fewer, NumPy makes short work and wakes no threads
QUIET = {"over": "ignore", "invalid": "ignore"}  # as PyTorch is; `measure` shows what diverges
PIECE = 2**16  # normal numbers that a run draws in one go, for several steps if its cloud is small


class Engine:
    """Clouds of particles that move step by step.

    Parameters
    ----------
    particles, inputs, labels : array_like, shapes (R, N, d + 2), (R, n, d + 1) and (R, n)
        As for `mfld.langevin_step`, one for each run.
    seeds : sequence of int
        Of the noise, one for each run: the numbers of a run do not depend on the others.
    step_size, weight_decay, output_scale : float
    dtype : str
    device : torch.device
    plain : pair of callables, optional
        `mfld.network` and `mfld.langevin_step`, faster for one small cloud on a CPU: taken below `SMALL`.
    kept : int
        See `KEPT`.

    Attributes
    ----------
    particles : torch.Tensor, shape (R, N, d + 2)
    """

    def __init__(self, particles, inputs, labels, seeds, *, step_size, weight_decay, output_scale, dtype, device,
                 plain=None, kept=KEPT):  # fmt: skip
        def tensor(arrays):
            return torch.tensor(np.asarray(arrays), dtype=getattr(torch, dtype), device=device)

        self.particles, y = tensor(particles), tensor(labels)[..., None]
        (runs, count, width), n = self.particles.shape, y.shape[1]
        self.n, self.step_size, self.weight_decay, self.output_scale = n, step_size, weight_decay, output_scale
        self.rows = count if runs * count * (n + 1) <= kept else max(1, AT_ONCE // (runs * (n + 1)))
        self.hidden = self.particles.new_empty(runs, min(self.rows, count), n + 1)
        self.down = self.particles.new_zeros(runs, n + 1, width)
        self.down[:, :n, :-1], self.down[:, n, -1] = tensor(inputs), 1
        self.across = (2 * self.down).transpose(1, 2).contiguous()
        self.down[:, :n] *= y * (4 * output_scale * step_size / (3 * n))
        self.pull_of_offset = y * (8 * output_scale * step_size / (3 * n))
        self.minus_y = -y
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.noise = self._normal_numbers(max(1, PIECE // (count * width)))
        small = runs == 1 and self.particles.device.type == "cpu" and count * (n + 1) * width < SMALL
        numbers = {"step_size": step_size, "weight_decay": weight_decay, "output_scale": output_scale}
        self.plain = plain and small
        if self.plain:
            self.network = partial(plain[0], inputs=inputs[0], output_scale=output_scale)
            self.langevin_step = partial(plain[1], inputs=inputs[0], labels=labels[0], **numbers)

    def _normal_numbers(self, steps):
        """The noise of one step after another, drawn for several at a time."""
        runs, count, width = self.particles.shape
        piece = self.particles.new_empty(runs, steps, count, width)
        while True:
            for part, generator in zip(piece, self.generators, strict=True):
                part.normal_(generator=generator)
            yield from piece.unbind(1)

    def _sigmoids(self, block):
        """s(2 <w, z> + 2 b) of one block of particles, and s(2 c) in the last column."""
        return torch.bmm(block, self.across, out=self.hidden[:, : block.shape[1]]).sigmoid_()

    @torch.inference_mode()
    def output(self):
        """The networks' outputs, shape (R, n, 1). Of a cloud in one block, the hidden values stay for `step`."""
        if self.plain:
            with np.errstate(**QUIET):
                return torch.from_numpy(self.network(self.particles[0].numpy()))[None, :, None]
        blocks = self.particles.split(self.rows, dim=1)
        mean = sum(self._sigmoids(block).sum(1) for block in blocks)[..., None] / self.particles.shape[1]
        return self.output_scale / 3 * (2 * mean[:, : self.n] + (4 * mean[:, self.n :] - 3))

    def step(self, temperature, output=None, noise=None):
        """Move all clouds by one step.

        Parameters
        ----------
        temperature : sequence of float
            One for each run.
        output : torch.Tensor, optional
            What `output` has just returned, if it was asked.
        noise : torch.Tensor, shape (R, N, d + 2), optional
            The engine's own unless given.
        """
        noise = next(self.noise) if noise is None else noise
        if self.plain:
            x = self.particles[0].numpy()
            with np.errstate(**QUIET):
                x[:] = self.langevin_step(x, noise=noise[0].numpy(), temperature=temperature[0])
        else:
            self._move(temperature, output, noise)

    @torch.inference_mode()
    def _move(self, temperature, output, noise):
        """What `step` does for many clouds, large ones and on a GPU."""
        output = self.output() if output is None else output
        slope = torch.sigmoid(self.minus_y * output)
        offset = (self.pull_of_offset * slope).sum(1, keepdim=True)
        pull = self.down * torch.cat([slope, offset], 1)
        heat = temperature[0]
        if any(other != heat for other in temperature):
            heat = torch.tensor(temperature, dtype=output.dtype, device=output.device)[:, None, None]
        kick, shrink = (2 * heat * self.step_size) ** 0.5, 1 - 2 * heat * self.step_size * self.weight_decay
        blocks = self.particles.split(self.rows, dim=1)
        for block, xi in zip(blocks, noise.split(self.rows, dim=1), strict=True):
            hidden = self.hidden if len(blocks) == 1 else self._sigmoids(block)
            torch.addcmul(hidden, hidden, hidden, value=-1, out=hidden)
            block.mul_(shrink).baddbmm_(hidden, pull).add_(xi * kick)

    def measure(self, output):
        """Of each run, the mean logistic loss, and how far the step moves an offset c at most; shape (R,) each."""
        against = (self.minus_y * output)[..., 0].cpu().double()
        push = (torch.sigmoid(against) * self.minus_y[..., 0].cpu()).mean(1).abs()
        loss = torch.nn.functional.softplus(against).mean(1)
        return loss.numpy(), (2 / 3 * self.output_scale * self.step_size * push).numpy()

    def cloud(self):
        """A copy of the particles as a NumPy array."""
        return self.particles.numpy(force=True).copy()


def find_device(name, dtype):
    """The torch device for `device=name`: the GPU if a small computation on it succeeds."""
    choice("device", name, {"auto", "cpu", "gpu"})
    kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    if name == "cpu" or (name == "auto" and (kind is None or (kind == "mps" and dtype == "float64"))):
        return torch.device("cpu")
    try:
        if kind is None:
            raise RuntimeError("PyTorch finds no GPU")
        float(torch.arange(3, dtype=getattr(torch, dtype), device=kind).sum())
    except Exception as why:  # a driver too old, a card held by somebody else, no double precision
        if name == "gpu":
            raise RuntimeError(f"device='gpu' cannot be used here: {why}; take device='cpu'") from why
        warnings.warn(f"the GPU that is there cannot be used ({why}); the CPU does the work", stacklevel=4)
        return torch.device("cpu")
    return torch.device(kind)
