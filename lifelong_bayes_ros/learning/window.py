"""The steps that the learner remembers, and what they say for each regime."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..memory.reservoir import Sample


@dataclass
class Step:
    """What is remembered of a recent transition."""

    design: torch.Tensor
    target: np.ndarray
    sample: Sample
    live: float  # log evidence of the live head
    sparse: float  # and of the hypotheses
    stored: dict[str, tuple[float, float]]  # log evidence and NIS of every stored regime
    learned: np.ndarray  # errors of the learned and the nominal model, in sd of the sensors [ds]
    nominal: np.ndarray


@dataclass(frozen=True)
class Race:
    """Learned against nominal model over some steps, by squared errors."""

    learned: float
    nominal: float
    apart: float  # squared distance of what they predicted

    @property
    def weight(self) -> float:
        """Share of the learned model in the mixture that predicts best.

        By least squares (Bates and Granger 1969): w = ½ + ½ (Σ e_nominal² − Σ e_learned²) / Σ Δ²,
        with Δ the difference of the predictions, not all zero.
        """
        return 0.5 + 0.5 * (self.nominal - self.learned) / self.apart


@dataclass(frozen=True)
class Lead:
    """How far a stored regime leads on the live head: nats since it came, so many steps ago."""

    name: str | None
    nats: float
    steps: int


class Recent:
    """The last steps, oldest first."""

    def __init__(self, length: int) -> None:
        self._steps: deque[Step] = deque(maxlen=length)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)

    def append(self, step: Step) -> None:
        """Take a new step; the oldest one goes."""
        self._steps.append(step)

    def last(self, steps: int) -> list[Step]:
        """The last steps, oldest first; fewer where there are not as many."""
        return list(self._steps)[-steps:]

    def race(self, steps: int) -> Race:
        """How the learned and the nominal model did over the last steps."""
        window = self.last(steps)
        learned = np.stack([s.learned for s in window])
        nominal = np.stack([s.nominal for s in window])
        return Race(*(float(np.sum(e**2)) for e in (learned, nominal, learned - nominal)))

    def leader(
        self, names: Sequence[str], steps: int, latest: int, later: float, worst_nis: float
    ) -> Lead:
        """Stored regime with most evidence over the last steps, its lead on the live head.

        The steps in which it cannot have been yet, since the change point is known to a few steps
        only, do not count against it: the lead is that of the likeliest beginning within the first
        `latest` of them.

        Args:
            names: of the stored regimes.
            steps: since the change point.
            latest: of these steps may be before the regime came.
            later: what a beginning after the change point costs, nats.
            worst_nis: mean NIS from which on a regime is not worth recalling.
        """
        latest = max(min(latest, steps - 2), 1)
        window = self.last(steps)
        best = Lead(None, float('-inf'), steps)
        for name in names:
            lead = nis = 0.0
            found, since, mean = float('-inf'), steps, float('inf')
            for taken, step in enumerate(reversed(window), start=1):
                if name not in step.stored:
                    found = float('-inf')
                    break
                evidence, square = step.stored[name]
                lead += evidence - step.live
                nis += square
                after = steps - taken  # the change point
                # Of several beginnings one is best by chance.
                gain = lead - later if after else lead
                if after < latest and gain >= found:
                    found, since, mean = gain, taken, nis / taken
            if found > best.nats and mean <= worst_nis:
                best = Lead(name, found, since)
        return best

    def best_stored(self, names: Sequence[str], steps: int) -> tuple[str, float]:
        """Best stored regime over the last steps and the live head's lead on it, nats per step."""
        window = self.last(steps)
        live = np.mean([s.live for s in window])
        totals = [
            np.mean([s.stored[n][0] for s in window if n in s.stored] or [-np.inf]) for n in names
        ]
        best = int(np.argmax(totals))
        return names[best], float(live - totals[best])
