"""One thread per process for linear algebra; import this before numpy.

Read once, when numpy and torch load their linear algebra. Small matrices gain nothing from
threads, and on a busy machine they wait for them.
"""

import os

for _variable in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ.setdefault(_variable, '1')
