"""
A GAN on handwritten digits, in a loop of your own
==================================================

Two networks, a plain PyTorch loop and ``sp.GameOptimizer``. The digits are part of the package;
``--data DIRECTORY`` reads the four IDX files of the full MNIST instead. 1,500 steps take about 20
seconds on one core and give rough digits; more steps give better ones. ::

    python examples/gan_mnist.py [--steps 1500] [--data DIRECTORY] [--out docs/images]

.. image:: /images/gan_mnist.png
   :alt: 64 samples of the generator
"""

# sphinx_gallery_thumbnail_path = "images/gan_mnist.png"

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import saddlepoint as sp
from saddlepoint.data import load_digits, load_mnist
from saddlepoint.games import GAN_LOSSES

parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
parser.add_argument("--steps", type=int, default=1500)
parser.add_argument("--data", type=Path, help="directory with the IDX files of MNIST")
parser.add_argument("--out", type=Path, default=Path("docs/images"))
options = parser.parse_args()

torch.manual_seed(0)
train, _ = load_mnist(options.data) if options.data else load_digits()
images = train.images.flatten(1)  # (N, 784), values in [-1, 1]
generator = nn.Sequential(
    *(nn.Linear(64, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2)),
    *(nn.Linear(256, 784), nn.Tanh()),
)
discriminator = nn.Sequential(
    *(nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2)),
    nn.Linear(256, 1),  # a logit, without a sigmoid
)
average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(0.995))

# %%
# One ``torch.optim`` optimizer for each player, and a rule. ``GradientDescent`` is the default.

discriminator_loss, generator_loss = GAN_LOSSES["non-saturating"]
optimizer = sp.GameOptimizer(
    {
        "discriminator": torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.0, 0.99)),
        "generator": torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.0, 0.99)),
    },
    rule=sp.GradientDescent(),  # for example sp.Extragradient() or sp.Consensus()
)

# %%
# The closure returns the loss of each player. There is no ``backward`` and no ``detach``. The batch
# is drawn before the closure, because a rule may evaluate the closure several times.

for step in range(options.steps):
    real = images[torch.randint(len(images), (64,))]
    noise = torch.randn(64, 64)

    def losses(real=real, noise=noise):
        on_real, on_fake = discriminator(real), discriminator(generator(noise))
        return {
            "discriminator": discriminator_loss(on_real, on_fake),
            "generator": generator_loss(on_fake),
        }

    result = optimizer.step(losses)
    average.update_parameters(generator)
    if step % max(1, options.steps // 5) == 0:
        print(step, {player: round(loss, 3) for player, loss in result.losses.items()})

# %%
# Samples of the moving average of the generator.

with torch.no_grad():
    samples = average(torch.randn(64, 64)).view(8, 8, 28, 28)
grid = samples.permute(0, 2, 1, 3).reshape(8 * 28, 8 * 28)
figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
axis.imshow(grid.numpy(), cmap="gray", vmin=-1, vmax=1)
axis.axis("off")
figure.savefig(options.out / "gan_mnist.png", dpi=110)
