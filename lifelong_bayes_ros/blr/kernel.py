"""Builds kernel.c on first use and loads it. Where there is no C compiler, there is no kernel.

Plain C through ctypes: it compiles quickly, once per machine, needs no header but
libc's, and runs without the interpreter lock. A torch extension would have to parse torch's
headers, and `torch.compile` would have to trace the step in every new process.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name('kernel.c')
# Only the compiler may see -ffast-math: given to the linker, it flushes the whole process's
# denormal numbers to zero. Why sums keep their order: see run_block in kernel.c.
FLAGS = (
    '-O3',
    '-march=native',
    '-ffast-math',
    '-fno-associative-math',
    '-fprefetch-loop-arrays',
    '-fPIC',
)
PRECISE = (
    '-O3',
    '-march=native',
    '-ffp-contract=fast',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-fPIC',
)

PRICE, SQUARED, OBSERVED = range(3)


class Tensor(ctypes.Structure):
    """Addresses of one parameter's buffers; see kernel.c."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                'mean',
                'h',
                'momentum',
                'sample',
                'gradient',
                'curvature',
                'prior_mean',
                'prior_precision',
            )
        ),
        ('size', ctypes.c_int64),
        ('offset', ctypes.c_int64),
    ]


class Settings(ctypes.Structure):
    """One group's settings; see kernel.c."""

    _fields_ = [
        *(
            (name, ctypes.c_float)
            for name in ('lr', 'decay', 'debias', 'rho', 'ess', 'delta', 'prior_mean', 'clip')
        ),
        *((name, ctypes.c_int32) for name in ('curvature', 'root', 'positive', 'rademacher')),
    ]


class Group(ctypes.Structure):
    """A group's parameters and settings; see kernel.c."""

    _fields_ = [
        ('tensors', ctypes.POINTER(Tensor)),
        ('count', ctypes.c_int64),
        ('rule', Settings),
    ]


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be built (with a warning saying why)."""
    library = library_of(SOURCE, FLAGS, 'the optimizer')
    if library is None:
        return None
    library.blr_run.argtypes = [
        ctypes.POINTER(Group),
        ctypes.c_int64,
        ctypes.c_uint64,
        ctypes.c_uint64,
        ctypes.c_int32,
    ]
    library.blr_run.restype = ctypes.c_int32
    return library


def library_of(source: Path, flags: tuple[str, ...], whose: str) -> ctypes.CDLL | None:
    """A C file, compiled; None where that cannot be done (with a warning saying `whose`, why)."""
    compiler = os.environ.get('CC') or shutil.which('cc') or shutil.which('gcc')
    if compiler is None:
        return None
    try:
        return ctypes.CDLL(str(_build(compiler, source, flags)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, 'stderr', None) or error
        warnings.warn(f'{whose} runs without its kernel: {detail}', stacklevel=3)
        return None


def addresses(*arrays: Any) -> list[int]:
    """Where C finds arrays of numpy that may be written to; quicker than `array.ctypes.data`.

    Raises:
        TypeError: an array is read-only or not C-contiguous.
    """
    return [ctypes.addressof(ctypes.c_char.from_buffer(a)) for a in arrays]


def _build(compiler: str, source: Path = SOURCE, flags: tuple[str, ...] = FLAGS) -> Path:
    key = hashlib.sha256(source.read_bytes())
    for part in (compiler, *flags, platform.machine(), _processor()):
        key.update(part.encode())
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    folder = Path(base) / 'bayesian_learning_rule'
    library = folder / f'{source.stem}-{key.hexdigest()[:16]}.so'
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        compiled, linked = Path(work) / 'kernel.o', Path(work) / 'kernel.so'
        for command in (
            [compiler, *flags, '-c', str(source), '-o', str(compiled)],
            [compiler, '-shared', str(compiled), '-o', str(linked), '-lm'],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        os.replace(linked, library)
    return library


def _processor() -> str:
    """What `-march=native` depends on: a home may be shared by different machines."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(('flags', 'Features'))), '')
