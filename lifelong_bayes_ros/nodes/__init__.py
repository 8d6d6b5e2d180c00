"""The ROS 2 nodes: thin, one file each, everything they know lives in the other rooms."""

import os

# Read once, when numpy and torch load their linear algebra. Two threads on a pair of busy cores
# turn a plan of 2 ms into one of several hundred.
for _library in ('OMP', 'OPENBLAS', 'MKL'):
    os.environ.setdefault(f'{_library}_NUM_THREADS', '1')
