"""Training of the history-conditioned network, on short runs of the task family before life."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...dynamics.model import Prior
from ...learning.pretrain import Plant, PretrainConfig, Progress
from .cache import OfflineNetwork
from .family import PLANTS, RUN, family_runs
from .history import History, HistoryNetwork

BATCH = 512


def _make(
    plant: Plant, prior: Prior, config: PretrainConfig, seed: int, progress: Progress
) -> Prior:
    """The network of `History`, trained on short runs of the family from the prior's on."""
    progress(0.0, 'simulating the task family')
    # As many transitions as pre-training has, of more plants.
    runs = max(config.regimes * config.per_regime // (PLANTS * RUN), 2)
    inputs, targets = family_runs(plant, prior.dynamics, runs, seed)
    rows = inputs.shape[1] - len(prior.dynamics.trunk.mean)
    net = HistoryNetwork(prior.dynamics, rows)
    held = len(inputs) // 10  # of the first plants, which it does not train on
    _train(net, inputs[held:], targets[held:], config, seed, progress)
    with torch.no_grad():
        noise = (net(inputs[:held]) - targets[:held]).square().mean(dim=0)
    return replace(prior, dynamics=net.dynamics(), noise=noise.numpy().astype(float))


history_network = OfflineNetwork(History.name, _make)


def _train(
    net: HistoryNetwork,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    config: PretrainConfig,
    seed: int,
    progress: Progress,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=config.steps, pct_start=0.05, cycle_momentum=False
    )
    for step in range(config.steps):
        pick = torch.randint(len(inputs), (BATCH,), generator=generator)
        optimizer.zero_grad()
        (net(inputs[pick]) - targets[pick]).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            progress(step / config.steps, 'training on histories')
