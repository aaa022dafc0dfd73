r"""The step of `mfld.langevin_step`, for speed: many runs on one leading axis, in NumPy on a CPU and in torch on a GPU.

It computes the same numbers, which a test holds it to, by five turns of the formula.

* tanh(u) = 2 s(2 u) - 1 with the sigmoid s: PyTorch has a fast sigmoid on every processor. The 2 goes into the data.
* 1 - tanh^2 = 1 - 4 h with h = (s - 1/2)^2, which takes the place of s: the particles share the sum of the ones.
* The offset c is one more weight, that of one more example (0, ..., 0, 1): two products of matrices hold everything.
* The label goes into the data as well: with the margin q_j = y_j f(z_j) the slope is -y_j s(-q_j) / n.
* Clouds too large for the memory go through all of this block by block.

Nothing of the process is set or changed: threads are those that the linear algebra wakes for a product.
"""

import warnings

import numpy as np
import torch

from ._checks import choice

KEPT = 2**26  # hidden values kept from the first half of a step to the second; of more, each is computed twice
AT_ONCE = 2**22  # hidden values in a block
SERIAL = 2**15  # of so many numbers PyTorch takes the sigmoid without waking threads of its own
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
    library : module, optional
        Of the arrays: `numpy` on a CPU, `torch` elsewhere.
    kept : int
        See `KEPT`.

    Attributes
    ----------
    particles : array, shape (R, N, d + 2)
    """

    def __init__(self, particles, inputs, labels, seeds, *, step_size, weight_decay, output_scale, dtype, device,
                 library=None, kept=KEPT):  # fmt: skip
        self.library = library or (np if device.type == "cpu" else torch)
        self.dtype, self.device = dtype, device
        (runs, count, width), n = np.shape(particles), np.shape(labels)[1]
        y = np.asarray(labels, float)[..., None]
        down = np.zeros((runs, n + 1, width))
        down[:, :n, :-1], down[:, n, -1] = inputs, 1
        self.n, self.step_size, self.weight_decay, self.output_scale = n, step_size, weight_decay, output_scale
        self.particles, self.across = self._array(particles), self._array(2 * down.swapaxes(1, 2))
        down[:, :n] *= y * (output_scale * step_size / (3 * n))
        self.down, self.minus_y = self._array(down), self._array(-y[..., 0])
        self.pull_of_offset = self._array(y[..., 0] * (2 * output_scale * step_size / (3 * n)))
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.noise = self._normal_numbers(max(1, PIECE // (count * width)))
        self.temperature, self.kept = None, runs * count * (n + 1) <= kept
        rows = count if self.kept else min(count, max(1, AT_ONCE // (runs * (n + 1))))
        self.blocks = [slice(i, i + rows) for i in range(0, count, rows)]
        self.hidden = self._array(np.empty(runs * rows * (n + 1), dtype))

    def _array(self, values):
        """In the engine's library and precision, on its device."""
        array = np.array(values, self.dtype)
        return array if self.library is np else torch.tensor(array, device=self.device)

    def _normal_numbers(self, steps):
        """The noise of one step after another, drawn for several at a time."""
        runs, count, width = self.particles.shape
        piece = torch.as_tensor(self.particles).new_empty(runs, steps, count, width)
        steps = piece.numpy().swapaxes(0, 1) if self.library is np else piece.unbind(1)
        while True:
            for part, generator in zip(piece, self.generators, strict=True):
                part.normal_(generator=generator)
            yield from steps

    def _sigmoid(self, values):
        """In place."""
        for part in torch.as_tensor(values).view(-1).split(SERIAL) if self.library is np else [values]:
            part.sigmoid_()

    def _room(self, particles):
        """For the hidden values of a block."""
        runs, rows, _ = particles.shape
        return self.hidden[: runs * rows * (self.n + 1)].reshape(runs, rows, self.n + 1)

    def _sum(self, block):
        """The sums of s(2 <w, z> + 2 b), and of s(2 c) in the last column; what stays in the room are the h."""
        hidden = self._room(self.particles[:, block])
        self.library.matmul(self.particles[:, block], self.across, out=hidden)
        self._sigmoid(hidden)
        total = hidden.sum(1)
        hidden -= 0.5
        hidden *= hidden
        return total

    @np.errstate(over="ignore", invalid="ignore")  # as PyTorch is; `measure` shows what diverges
    def output(self):
        """The networks' outputs, shape (R, n). What is kept of them stays for `step`."""
        mean = sum(map(self._sum, self.blocks)) / self.particles.shape[1]
        return self.output_scale / 3 * (2 * mean[:, : self.n] + (4 * mean[:, self.n :] - 3))

    @np.errstate(over="ignore", invalid="ignore")
    def step(self, temperature, output=None, noise=None):
        """Move all clouds by one step.

        Parameters
        ----------
        temperature : sequence of float
            One for each run.
        output : array, optional
            What `output` has just returned, if it was asked.
        noise : array, shape (R, N, d + 2), optional
            The engine's own unless given.
        """
        slope = self.minus_y * (self.output() if output is None else output)
        self._sigmoid(slope)
        slope = self.library.concatenate([slope, (self.pull_of_offset * slope).sum(1)[:, None]], 1)
        pull, noise = self.down * slope[..., None], next(self.noise) if noise is None else noise
        if temperature != self.temperature:
            heat = np.array(temperature, float)[:, None, None] * self.step_size
            self.kick, self.shrink = self._array((2 * heat) ** 0.5), self._array(1 - 2 * heat * self.weight_decay)
            self.temperature = list(temperature)
        shared, pull = pull.sum(1)[:, None], 4 * pull
        for block in self.blocks:
            if not self.kept:
                self._sum(block)
            particles = self.particles[:, block]
            particles *= self.shrink
            particles += shared
            particles -= self._room(particles) @ pull
            particles += self.kick * noise[:, block]

    def measure(self, output):
        """Of each run, the mean logistic loss, and how far the step moves an offset c at most; shape (R,) each."""
        against = torch.as_tensor(self.minus_y * output).cpu().double()
        push = (torch.sigmoid(against) * torch.as_tensor(self.minus_y).cpu()).mean(1).abs()
        loss = torch.nn.functional.softplus(against).mean(1)
        return loss.numpy(), (2 / 3 * self.output_scale * self.step_size * push).numpy()

    def cloud(self):
        """A copy of the particles as a NumPy array."""
        return torch.as_tensor(self.particles).numpy(force=True).copy()


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
