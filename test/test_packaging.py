"""The package installs the ways people install it, and finds its files and its robots afterwards.

Every installation goes into a new environment and is made from a copy of the source tree, so that
nothing is found by accident. pip needs no index here: the new environment sees the packages of the
interpreter that runs the tests. Only colcon has to be fetched; where that fails, its tests are
skipped.
"""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lifelong_bayes_ros
from source_tree import ROOT, source_files

NAME = 'lifelong_bayes_ros'
SIM = 'lifelong_bayes_ros_sim'
# The least of colcon that builds ament_python packages; each brings what it needs itself.
COLCON = ('colcon-ros', 'colcon-bash')

# Run by an installation's interpreter, away from the source tree: where did everything go?
PROBE = """
import importlib.util, json
from pathlib import Path
import lifelong_bayes_ros, lifelong_bayes_ros_sim
from lifelong_bayes_ros.paths import share_dir
print(json.dumps({
    'version': lifelong_bayes_ros.__version__,
    'package': str(Path(lifelong_bayes_ros.__file__).resolve().parent),
    'sim': str(Path(lifelong_bayes_ros_sim.__file__).resolve().parent),
    'share': str(share_dir().resolve()),
    'top_level_sim': importlib.util.find_spec('sim') is not None,
}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command; the test fails with all that it printed if it does.

    Nothing that ties the child to this interpreter's ROS is handed down: the pip wheels mark the
    environment of their children, and with that mark another interpreter finds no libraries.
    """
    dropped = ('PYTHON', 'LD_LIBRARY_PATH', 'AMENT_', 'COLCON_', '_ROS_WHEELS_BOOTSTRAP_COMPLETE')
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        pytest.fail(f'{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}')
    return done.stdout


def new_environment(path: Path) -> Path:
    """The interpreter of a new environment that also sees this interpreter's packages.

    A .pth file that is found by way of another one is not run, so editable packages of this
    interpreter, such as the one under test, stay out of sight.
    """
    venv.create(path, with_pip=False, symlinks=True)
    site = next((path / 'lib').glob('python3*/site-packages'))
    packages = [part for part in sys.path if part.endswith(('site-packages', 'dist-packages'))]
    (site / 'running_interpreter.pth').write_text('\n'.join(packages))
    return path / 'bin' / 'python'


def pip_install(python: Path, *arguments: str, cwd: Path) -> None:
    """Installs without an index; what this interpreter has of the same name does not count."""
    offline = ('--no-deps', '--no-build-isolation', '--no-index', '--ignore-installed', '--quiet')
    run(python, '-m', 'pip', 'install', *offline, *arguments, cwd=cwd)


def probe(*python: str | Path, cwd: Path) -> dict[str, Path]:
    """Where an interpreter finds the two packages and the shared files, none of them missing."""
    found = json.loads(run(*python, '-c', PROBE, cwd=cwd))
    assert found.pop('version') == lifelong_bayes_ros.__version__
    assert not found.pop('top_level_sim')
    places = {name: Path(path) for name, path in found.items()}
    for path in source_files():
        if path.parts[0] == 'sim' and path.suffix != '.md':
            assert (places['sim'] / path.relative_to('sim')).is_file()
    assert (places['share'] / 'config' / 'robots' / 'quad.yaml').is_file()
    return places


def shared_files() -> list[Path]:
    """Files of the source tree that every installation keeps under share/."""
    return [
        path
        for path in source_files()
        if (path.parts[0] == 'config' and path.suffix != '.md') or path.match('launch/*.launch.py')
    ]


def functions(path: Path) -> set[str]:
    """Names of the functions at the top of a module."""
    body = ast.parse((ROOT / path).read_text('utf-8')).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source tree as git sees it."""
    for path in source_files():
        target = tmp_path / 'source' / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target)
    return tmp_path / 'source'


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An empty working directory: python looks for modules in the one it is started in."""
    (tmp_path / 'elsewhere').mkdir()
    return tmp_path / 'elsewhere'


@pytest.fixture(scope='module')
def metadata() -> dict:
    """The arguments that setup.py calls setup() with."""
    spy = textwrap.dedent("""
        import json, runpy, setuptools
        setuptools.setup = lambda **arguments: print(json.dumps(arguments))
        runpy.run_path('setup.py')
    """)
    return json.loads(run(sys.executable, '-c', spy, cwd=ROOT))


@pytest.fixture(scope='module')
def executables(metadata: dict) -> dict[str, str]:
    """The module and function behind each executable."""
    return dict(line.split(' = ') for line in metadata['entry_points']['console_scripts'])


class TestMetadata:
    """package.xml, setup.py, constraints.txt and the change log say the same."""

    def test_package_xml_is_valid_without_warnings(self) -> None:
        catkin_pkg = pytest.importorskip('catkin_pkg.package')
        warnings: list[str] = []
        package = catkin_pkg.parse_package(str(ROOT / 'package.xml'), warnings=warnings)
        package.validate(warnings=warnings)
        assert warnings == []
        assert package.name == NAME
        assert package.get_build_type() == 'ament_python'

    @pytest.mark.filterwarnings('ignore:nodes.Node.traverse')
    def test_one_version(self, metadata: dict) -> None:
        catkin_pkg = pytest.importorskip('catkin_pkg.package')
        changelog = pytest.importorskip('catkin_pkg.changelog')
        history = changelog.get_changelog_from_path(str(ROOT / 'CHANGELOG.rst'), NAME)
        released = [version for version, *_ in history.foreach_version() if version[0].isdigit()]
        assert {
            'package.xml': catkin_pkg.parse_package(str(ROOT / 'package.xml')).version,
            'setup.py': metadata['version'],
            'CHANGELOG.rst': released[0],
        } == dict.fromkeys(
            ('package.xml', 'setup.py', 'CHANGELOG.rst'), lifelong_bayes_ros.__version__
        )

    def test_every_dependency_is_pinned_within_its_range(self, metadata: dict) -> None:
        lines = (ROOT / 'constraints.txt').read_text('utf-8').splitlines()
        pins = [Requirement(line) for line in lines if line and not line.startswith('#')]
        wanted = [
            Requirement(line)
            for group in (metadata['install_requires'], *metadata['extras_require'].values())
            for line in group
        ]
        for python in ('3.10', '3.12'):
            here = default_environment() | {'python_version': python}
            pinned = {
                canonicalize_name(pin.name): next(iter(pin.specifier)).version
                for pin in pins
                if pin.marker is None or pin.marker.evaluate(here)
            }
            for need in wanted:
                pin = pinned.get(canonicalize_name(need.name), 'no pin')
                assert pin != 'no pin', f'{need} is not in constraints.txt'
                assert need.specifier.contains(pin), f'{need} is pinned to {pin}'

    def test_every_node_is_an_executable(self, executables: dict[str, str]) -> None:
        nodes = {
            path.stem
            for path in source_files()
            if path.match(f'{NAME}/nodes/*.py') and 'main' in functions(path)
        }
        assert executables == {
            'lifelong-bayes': f'{NAME}.__main__:main',
            **{node: f'{NAME}.nodes.{node}:main' for node in nodes},
        }
        assert 'main' in functions(Path(NAME, 'cli.py'))

    def test_every_folder_of_modules_is_a_package(self, metadata: dict) -> None:
        """A folder without __init__.py works in the source tree and is missing when installed."""
        folders = {
            '.'.join(path.parent.parts).replace('sim', SIM, 1)
            if path.parts[0] == 'sim'
            else '.'.join(path.parent.parts)
            for path in source_files()
            if path.parts[0] in (NAME, 'sim') and path.suffix == '.py'
        }
        assert folders == set(metadata['packages'])


@pytest.mark.skipif(importlib.util.find_spec('pip') is None, reason='this interpreter has no pip')
class TestPip:
    """`pip install .` and `pip install -e .` in a new environment."""

    def test_install(
        self, source: Path, elsewhere: Path, tmp_path: Path, executables: dict[str, str]
    ) -> None:
        python = new_environment(tmp_path / 'env')
        pip_install(python, '.', cwd=source)
        shutil.rmtree(source)  # what was installed needs nothing of it
        found = probe(python, cwd=elsewhere)
        site = next((tmp_path / 'env' / 'lib').glob('python3*/site-packages')).resolve()
        share = (tmp_path / 'env' / 'share' / NAME).resolve()
        assert found == {'package': site / NAME, 'sim': site / SIM, 'share': share}
        assert all((share / path).is_file() for path in [*shared_files(), Path('package.xml')])
        marker = tmp_path / 'env' / 'share' / 'ament_index' / 'resource_index' / 'packages' / NAME
        assert marker.is_file()
        assert all((python.parent / name).is_file() for name in executables)
        assert 'usage' in run(python.parent / 'lifelong-bayes', '--help', cwd=elsewhere).lower()

    def test_editable_install(
        self, source: Path, elsewhere: Path, tmp_path: Path, executables: dict[str, str]
    ) -> None:
        python = new_environment(tmp_path / 'env')
        pip_install(python, '-e', '.', cwd=source)
        root = source.resolve()
        assert probe(python, cwd=elsewhere) == {
            'package': root / NAME,
            'sim': root / 'sim',
            'share': root,
        }
        assert all((python.parent / name).is_file() for name in executables)
        assert 'usage' in run(python.parent / 'lifelong-bayes', '--help', cwd=elsewhere).lower()


@pytest.fixture(scope='module')
def colcon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has colcon, or a skipped test where colcon cannot be fetched."""
    pytest.importorskip('pip')
    home = tmp_path_factory.mktemp('colcon')
    python = new_environment(home / 'env')
    install = (python, '-m', 'pip', 'install', '--quiet', '--retries=1', '--timeout=15')
    try:
        run(*install, *COLCON, 'setuptools<80', cwd=home)
    except pytest.fail.Exception as error:
        pytest.skip(f'colcon could not be installed: {str(error).strip().splitlines()[-1]}')
    return python


class TestColcon:
    """`colcon build`, the way a ROS workspace installs the package."""

    @pytest.mark.parametrize('options', [(), ('--symlink-install',)], ids=['copy', 'symlink'])
    def test_build(
        self,
        colcon: Path,
        source: Path,
        elsewhere: Path,
        tmp_path: Path,
        executables: dict[str, str],
        options: tuple[str, ...],
    ) -> None:
        workspace = tmp_path / 'workspace'
        (workspace / 'src').mkdir(parents=True)
        source = source.rename(workspace / 'src' / NAME)
        run(colcon, '-m', 'colcon', 'build', *options, cwd=workspace)
        prefix = workspace / 'install' / NAME
        share = prefix / 'share' / NAME
        assert all((share / path).is_file() for path in [*shared_files(), Path('package.xml')])
        assert all(os.access(prefix / 'lib' / NAME / name, os.X_OK) for name in executables)
        assert (prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / NAME).is_file()

        # Sourced as people do it: the environment must come from colcon and not from this test.
        script = 'source install/local_setup.bash && cd "$0" && exec "$@"'
        in_workspace = ('bash', '-c', script, elsewhere)
        home = (source if options else prefix).resolve()
        for place in probe(*in_workspace, colcon, cwd=workspace).values():
            assert place.is_relative_to(home)
        command = prefix / 'lib' / NAME / 'lifelong-bayes'
        assert 'usage' in run(*in_workspace, colcon, command, '--help', cwd=workspace).lower()
