"""The robot file's switch for probing: small excitation while the regime is uncertain."""

from __future__ import annotations

from .section import NonNegative, Section, Share


class Probing(Section):
    """Excitation added to commands while it is not clear which regime the robot is in.

    `amplitude` is its size as a share of each command's half range, 0 for none; `entropy`, in
    nats, is the entropy of the regime probabilities above which it begins.
    """

    amplitude: Share = 0.0
    entropy: NonNegative = 0.5
