"""Files: the cache of pre-trained priors and the learner's state directory, written atomically."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..blr import Gaussian
from ..dynamics.head import Head
from ..dynamics.model import Prior
from ..errors import UserError
from ..memory.regimes import NOMINAL, Library, Regime
from ..memory.reservoir import Reservoir, Sample
from ..memory.tape import Tape
from ..paths import cache_dir
from .background_state import BackgroundSnapshot, load_background
from .codec import decode_prior, encode_prior, fingerprint, pack, unpack
from .forgetting import next_episode
from .learner import MODELS, Learner
from .pieces import digest, head_arrays, head_from, sample_arrays, samples_from
from .settings import LearnerConfig
from .tape_state import tape_from, tape_state

PRIOR = 'prior'  # begins the name of its file; the rest tells its content
STATE = 'learner.safetensors'
STATE_FOLDER = 'state'  # in a bag's folder: what the learner knew before the recording
START = 'start.json'  # there: step, stamp and digest of that state
PRIORS = re.compile(rf'{PRIOR}-(?P<content>[0-9a-f]{{16}})\.safetensors')
WRITING = re.compile(r'\.(?P<file>.+)\.(?P<writer>\d+)')  # what write_atomically calls it
BACKGROUND = 'background.'  # begins the names of its arrays
OUTCOMES = 'outcomes.'


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old or the new content, never half.

    A process killed meanwhile leaves its hidden temporary file; the next write removes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with temporary.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    _remove_left(path.parent, re.compile(re.escape(path.name)))


def cached_path(key: dict[str, Any]) -> Path:
    """Where the cache keeps the prior for `key`."""
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_dir() / f'{key.get("robot", "prior")}-{name}.safetensors'


def cached_prior(key: dict[str, Any], make: Any) -> tuple[Prior, bool]:
    """The prior for `key` from the cache, or from `make()`, which is then cached.

    Returns:
        The prior and whether it came from the cache. A damaged cache file is made again.
    """
    path = cached_path(key)
    if path.is_file():
        try:
            return decode_prior(path.read_bytes(), str(path))[0], True
        except UserError:
            path.unlink()
    data = encode_prior(make())
    write_atomically(path, data)
    # Read back: linear algebra rounds by the layout of its arrays, and these must agree.
    return decode_prior(data, str(path))[0], False


@dataclass(frozen=True)
class Snapshot:
    """A learner at one transition, to be written while it goes on: nothing in it changes."""

    prior: Prior
    config: LearnerConfig
    heads: dict[str, Head]  # live, and of every regime
    tapes: dict[str, Tape]
    reservoirs: dict[str, Reservoir]
    entered: list[Sample]  # what was remembered of the present regime when the robot came there
    known: dict[str, Gaussian]  # posteriors that tapes may start from and that are kept anyway
    background: BackgroundSnapshot | None
    outcomes: list[np.ndarray]  # what the digest takes of them
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]

    @classmethod
    def of(cls, learner: Learner) -> Snapshot:
        """Take one, between two transitions and in the thread that learns: it copies little."""
        library, posterior = learner.library, learner.live.posterior
        # The live head alone is updated in place.
        posterior = Gaussian(posterior.mean, posterior.covariance.clone())
        heads = {'live': learner.live.replace(posterior=posterior)}
        heads |= {r.name: r.head for r in library.regimes}
        tapes = {'live': learner.tape} | {r.name: r.tape for r in library.regimes}
        reservoirs = {r.name: r.reservoir for r in library.regimes} | {'waiting': learner.waiting}
        arrays = {
            'draws': learner.draws.numpy(),
            'past': learner.past,
            'log_width': learner.widths(),
            'offsets': np.stack([o.mean for o in learner.offsets.values()]),
        }
        if learner.sparse is not None:
            arrays |= {f'sparse.{n}': a for n, a in learner.sparse.state().items()}
        more, outcomes = learner.outcomes.state()
        arrays |= {f'{OUTCOMES}{name}': array for name, array in more.items()}
        meta = {
            'outcomes': outcomes,
            'config': asdict(learner.config),
            'seed': learner.seed,
            'step': learner.step,
            'learned': learner.learned,
            'stamp_ns': learner.stamp_ns,
            'taught': sorted(learner.taught),
            'first_episode': learner.first_episode,
            'identity': learner.identity,
            'names': library.names,
            'named': library.named,
            'notes': dict(library.notes),
            'dof': {name: head.noise.dof for name, head in heads.items()},
            'seen': {name: r.seen for name, r in reservoirs.items()},
            'entered_seen': learner.entered[1],
            'probabilities': dict(learner.filter.probabilities),
            'surprise': [learner.surprise.fast, learner.surprise.slow],
            'age': learner.age,
            'recalled': learner.recalled,
            'guarded': learner.guarded,
            'dense': learner.dense,
            'rng': learner.rng.bit_generator.state,
        }
        return cls(
            learner.prior,
            learner.config,
            heads,
            tapes,
            {name: replace(r, samples=list(r.samples)) for name, r in reservoirs.items()},
            list(learner.entered[0]),
            _known(learner) | {'head.live': posterior},
            None if learner.background is None else BackgroundSnapshot.of(learner),
            [part.copy() for part in learner.outcomes.parts()],
            arrays,
            meta,
        )

    def digest(self) -> str:
        """As `Learner.digest`."""
        sparse = [a for n, a in self.arrays.items() if n.startswith('sparse.')]
        widths = self.arrays['log_width']
        return digest(list(self.heads.values()), [*sparse, *widths, *self.outcomes])

    def write(self, folder: Path) -> str:
        """Write a state directory; returns the digest.

        A reader, or a crash at any moment, sees the old state or the new one: the state file,
        which is replaced at once, names the file of the prior that it belongs to, and that one is
        written before and the old one removed after.

        Raises:
            OSError: the directory cannot be written; it holds the old state.
        """
        arrays = dict(self.arrays)
        for name, head in self.heads.items():
            arrays |= head_arrays(f'head.{name}', head)
        for name, reservoir in self.reservoirs.items():
            arrays |= sample_arrays(f'reservoir.{name}', reservoir.samples)
        arrays |= sample_arrays('entered', self.entered)
        background = None
        if self.background is not None:
            more, background = self.background.state()
            arrays |= {f'{BACKGROUND}{name}': array for name, array in more.items()}
        tapes = {}
        for name, tape in self.tapes.items():
            more, tapes[name] = tape_state(f'tape.{name}', tape, self.known)
            arrays |= more
        prior = encode_prior(self.prior)
        path = folder / f'{PRIOR}-{_content(prior)}.safetensors'
        told = self.digest()
        meta = self.meta | {
            'prior': fingerprint(self.prior),
            'prior_file': path.name,
            'tapes': tapes,
            'background': background,
            'digest': told,
        }
        if not (path.is_file() and path.read_bytes() == prior):
            write_atomically(path, prior)
        write_atomically(folder / STATE, pack('learner', arrays, meta))
        _tidy(folder, path.name)
        return told


def save_state(learner: Learner, folder: Path) -> str:
    """Write the learner's posterior and memory to a directory; returns its digest.

    The short window of the last transitions that the surprise test looks at is not kept: after a
    resume it fills again, as at the start of a life. See `Snapshot` for writing beside learning.

    Raises:
        OSError: the directory cannot be written; it holds the old state.
    """
    return Snapshot.of(learner).write(folder)


def load_state(folder: Path, device: str = 'cpu', wait: bool = True) -> Learner:
    """A learner that goes on where `save_state` left off; `wait` as there.

    Raises:
        UserError: no such directory, damaged, of another version, or prior and state do not
            belong together.
    """
    try:
        return _load(folder, device, wait)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        StopIteration,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(
            f'{folder}: {STATE} does not hold what this version expects ({error!r}); it was made '
            'by another version or changed by hand'
        ) from None


def state_files(folder: Path) -> tuple[Path, Path]:
    """The files of a state directory: the learner's own, and that of its prior.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / STATE
    _, meta = unpack('learner', _read(folder, STATE), str(path))
    return path, folder / _prior_file(meta)


def claim(folder: Path) -> int:
    """Keep others from changing the state in a folder that exists; reading it needs no claim.

    Returns:
        A file descriptor: whoever closes it, or is killed, gives the folder back. It leaves no
        file behind. On a file system that cannot lock folders it claims nothing.

    Raises:
        UserError: a running learner or another command has it.
    """
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise UserError(
            f'{folder}: a running learner, or another command, works on this state; stop that '
            'learner, or let the command end, then try again'
        ) from None
    except OSError:
        pass  # NFS, for one
    return held


@contextmanager
def revised(folder: Path, device: str = 'cpu') -> Iterator[Learner]:
    """The learner of a state directory, which is written back when the block ends well.

    `device`: where its trunk learns.

    Raises:
        UserError: as `load_state` and `claim`; or somebody else wrote the state meanwhile: it is
            left alone.
    """
    _check_there(folder, STATE)
    held = claim(folder)
    try:
        learner = load_state(folder, device)
        before = (folder / STATE).stat()
        yield learner
        now = (folder / STATE).stat()
        if (now.st_ino, now.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
            raise UserError(
                f'{folder}: the state was written by somebody else meanwhile and is left as it '
                'is; stop the learner that works on it, then try again'
            )
        save_state(learner, folder)
    finally:
        os.close(held)


def save_new(learner: Learner, folder: Path) -> None:
    """Write a state directory that does not exist yet, wholly or not at all.

    Raises:
        UserError: it exists.
    """
    if folder.exists():
        raise UserError(f'{folder}: is there already; give a folder that is not')
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f'.{folder.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)  # of one that was interrupted
    try:
        save_state(learner, partial)
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _load(folder: Path, device: str, wait: bool) -> Learner:
    data = _read(folder, STATE)
    arrays, meta = unpack('learner', data, str(folder / STATE))
    name = _prior_file(meta)
    data = _read(folder, name)
    prior, _ = decode_prior(data, str(folder / name))
    # The fingerprint is of the trunk alone; the name, but for that of earlier versions, of all.
    named = PRIORS.fullmatch(name)
    if meta['prior'] != fingerprint(prior) or (named and named['content'] != _content(data)):
        raise UserError(f'{folder}: {STATE} belongs to another prior than {name} beside it')
    learner = Learner(prior, LearnerConfig(**meta['config']), meta['seed'], device, wait)

    def head(name: str) -> Head:
        return head_from(arrays, f'head.{name}', meta['dof'][name], prior)

    def reservoir(name: str) -> Reservoir:
        samples = samples_from(arrays, f'reservoir.{name}')
        return Reservoir(learner.config.reservoir, meta['seen'][name], samples)

    learner.library = Library(
        [Regime(n, head(n), reservoir(n)) for n in meta['names']],
        meta['named'],
        meta.get('notes', {}),
    )
    learner.live = head('live')
    _load_tapes(learner, arrays, meta.get('tapes', {}))
    learner.draws = torch.tensor(arrays['draws'])
    for model, width in zip(MODELS, arrays['log_width'], strict=True):
        learner.intervals[model].log_width = width
    if 'offsets' in arrays:  # older states know of none
        for offset, mean in zip(learner.offsets.values(), arrays['offsets'], strict=True):
            offset.mean = mean
    learner.past = arrays['past']
    learner.step, learner.learned = meta['step'], meta['learned']
    learner.stamp_ns, learner.identity = meta['stamp_ns'], meta['identity']
    learner.taught = frozenset(meta.get('taught', ()))  # older states do not tell
    learner.waiting = reservoir('waiting')
    learner.entered = samples_from(arrays, 'entered'), meta['entered_seen']
    learner.filter.probabilities = meta['probabilities']
    learner.surprise.fast, learner.surprise.slow = meta['surprise']
    learner.age = meta['age']
    learner.recalled = meta.get('recalled', False)  # nor this
    learner.guarded, learner.dense = meta['guarded'], meta['dense']
    if learner.sparse is not None:
        learner.sparse.restore(
            {n.removeprefix('sparse.'): a for n, a in arrays.items() if n.startswith('sparse.')}
        )
    if meta.get('outcomes'):
        part = {n.removeprefix(OUTCOMES): a for n, a in arrays.items() if n.startswith(OUTCOMES)}
        learner.outcomes.restore(part, meta['outcomes'])
    learner.first_episode = meta.get('first_episode', 0)  # older states do not tell this, either
    learner.first_episode = next_episode(learner)
    learner.rng.bit_generator.state = meta['rng']
    if learner.background is not None and meta.get('background'):
        part = {
            n.removeprefix(BACKGROUND): a for n, a in arrays.items() if n.startswith(BACKGROUND)
        }
        load_background(learner, part, meta['background'])
    if learner.digest() != meta['digest']:
        raise UserError(f'{folder}: the posterior does not match its digest; it is damaged')
    _check_values(learner, folder)
    return learner


def _check_values(learner: Learner, folder: Path) -> None:
    """Refuse what the digest does not vouch for and learning would break on, late and unseen."""
    spec, history = learner.dynamics.spec, learner.dynamics.history()
    shapes = (len(spec.state),), (len(spec.action),), history.shape, (len(spec.state),)
    reservoirs = {f'regime {r.name}': r.reservoir.samples for r in learner.library.regimes}
    reservoirs |= {'waiting samples': learner.waiting.samples, 'entered': learner.entered[0]}
    parts = {
        what: [(a, shape) for s in samples for a, shape in zip(_arrays(s), shapes, strict=True)]
        for what, samples in reservoirs.items()
    }
    probabilities = list(learner.filter.probabilities.values())
    surprise = [learner.surprise.fast, learner.surprise.slow]
    parts['past'] = [(learner.past, history.shape)]
    parts['offsets'] = [(offset.mean, shapes[0]) for offset in learner.offsets.values()]
    parts['probabilities'] = [(np.array(probabilities, float), (len(probabilities),))]
    parts['surprise'] = [(np.array(surprise, float), (2,))]
    for what, found in parts.items():
        if any(a.shape != shape or not np.isfinite(a).all() for a, shape in found):
            raise UserError(
                f'{folder}: {what} in {STATE} is damaged: not finite, or of another shape; take '
                'an earlier copy of the state, or begin anew with resume:=false'
            )


def _arrays(sample: Sample) -> tuple[np.ndarray, ...]:
    return sample.x, sample.u, sample.past, sample.x_next


def _tidy(folder: Path, prior: str) -> None:
    """Remove the prior of the state before, and what killed writers left of such files."""
    for path in folder.iterdir():
        if PRIORS.fullmatch(path.name) and path.name != prior:
            path.unlink(missing_ok=True)
    _remove_left(folder, PRIORS)


def _remove_left(folder: Path, names: re.Pattern[str]) -> None:
    """Remove temporary files of these names whose writers were killed."""
    for path in folder.iterdir():
        left = WRITING.fullmatch(path.name)
        if left and names.fullmatch(left['file']) and not _runs(int(left['writer'])):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OverflowError:
        return False
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _prior_file(meta: dict[str, Any]) -> str:
    return meta.get('prior_file', f'{PRIOR}.safetensors')  # as earlier versions called it


def _content(prior: bytes) -> str:
    """What the name of its file tells of a prior."""
    return hashlib.sha256(prior).hexdigest()[:16]


def _read(folder: Path, name: str) -> bytes:
    _check_there(folder, name)
    return (folder / name).read_bytes()


def _check_there(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise UserError(f'{folder}: no {name} there; give a state directory of this package')


def _known(learner: Learner) -> dict[str, Gaussian]:
    """Posteriors that tapes may start from and that are kept anyway."""
    known = {'family': learner.family, 'home': learner.nominal.posterior}
    known |= {f'head.{r.name}': r.head.posterior for r in learner.library.regimes}
    return known | {'head.live': learner.live.posterior}


def _load_tapes(
    learner: Learner, arrays: dict[str, np.ndarray], tapes: dict[str, dict[str, Any]]
) -> None:
    """Tapes of the live head and of every regime; where there is none, a head starts its own."""
    known = _known(learner)

    def tape(name: str, head: Head) -> Tape:
        if name not in tapes:
            return Tape(head, root=learner.nominal.posterior if name == NOMINAL else None)
        return tape_from(arrays, f'tape.{name}', tapes[name], known, learner.prior)

    regimes = learner.library.regimes
    learner.tape = tape('live', learner.live)
    learner.library.regimes = [replace(r, tape=tape(r.name, r.head)) for r in regimes]
