"""Say where the modules of a pipeline come from: a sandbox has the source root and its packages."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os.path
import sys
import sysconfig
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.utils import canonicalize_name

from modalrun.errors import UsageError
from modalrun.run.contract import CODE_FOLDER
from modalrun.spec.python_pipelines import import_folder
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.spec_argument import module_file

_OURS = {"modalrun", "zenml"}
_COMMAND = {"__main__", "__mp_main__"}
"""Names of the command that imports the pipeline; `multiprocessing` adds the second one."""
_PYTHON = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "data")]
_INSTALLED = {"site-packages", "dist-packages"}

_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "bs4": "beautifulsoup4",
    "dotenv": "python-dotenv",
    "dateutil": "python-dateutil",
}
"""What to install for a module whose package has another name."""


def missing_module_hint(name: str, spec: RunSpec) -> str | None:
    """Return what to do where code imports a module that is not there.

    Returns:
        None if a part of it is there: then the name is wrong.
    """
    top = name.partition(".")[0]
    if top != name and (top in sys.modules or _is_in(spec.source_root, top)):
        return None
    if hint := subfolder_hint(name, spec):
        return hint
    package = _DISTRIBUTIONS.get(top, top)
    return (
        f"{package} is not installed in this Python ({sys.executable}); the pipeline is also"
        f" imported here: pip install {package}"
    )


def subfolder_hint(name: str, spec: RunSpec) -> str | None:
    """Return what to do for a module that is in a folder of the source root, or beside it.

    Returns:
        None if it is not.
    """
    top = name.partition(".")[0]
    root = spec.source_root.resolve()
    if hint := _package_hint(top, root, spec):
        return hint
    for folder in sorted(root.iterdir()):
        if _is_in(folder, top):
            return _hint(folder.resolve(), spec)
    # Of a run spec in `configs/`.
    for folder in (root.parent, root.parent / "src"):
        if _is_in(folder, top):
            return f"{spec.hint_to_move_root(folder)}, the folder that it is in."
    return None


def _package_hint(missing: str, root: Path, spec: RunSpec) -> str | None:
    """Return what to do for a pipeline that is named without the package that it is in."""
    module = spec.pipeline.rpartition(".")[0]
    for folder in (root, *sorted(root.iterdir()), root.parent, root.parent / "src"):
        file = module_file(module, folder) if module else None
        if file is None or (base := import_folder(file)) not in folder.parents:
            continue
        pipeline = _pipeline_from(base, file, spec)
        if missing in {module.partition(".")[0], pipeline.partition(".")[0]}:
            package = pipeline.removesuffix(f".{spec.pipeline}")
            move = spec.hint_to_move_root(base, pipeline)
            return f"{move}: the pipeline is in the package '{package}'."
    return None


def _pipeline_from(folder: Path, file: Path | None, spec: RunSpec) -> str:
    """Return the pipeline's source where a folder is the source root; "" if that is the same."""
    if file is None or not file.is_relative_to(folder):
        return ""
    parts = [part for part in file.relative_to(folder).with_suffix("").parts if part != "__init__"]
    source = ".".join([*parts, spec.pipeline.rpartition(".")[2]])
    return "" if source == spec.pipeline else source


@dataclass(frozen=True)
class Surroundings:
    """What Python had loaded, and where it looked for modules, before the pipeline was imported."""

    modules: frozenset[str] = field(default_factory=lambda: frozenset(sys.modules))
    path: frozenset[Path] = field(default_factory=lambda: frozenset(map(Path, sys.path)))


def code_folders(source_root: Path, docker: Mapping[str, Any]) -> list[Path]:
    """Return the folders of this machine from which a sandbox imports modules.

    Args:
        source_root: The source root, which is one of them.
        docker: The fields of the `DockerSettings`: their PYTHONPATH names folders below it.
    """
    folders = [source_root]
    variables = {**(docker.get("environment") or {}), **(docker.get("runtime_environment") or {})}
    for name in str(variables.get("PYTHONPATH") or "").split(":"):
        path = Path(os.path.normpath(Path(CODE_FOLDER, name)))
        if path.is_relative_to(CODE_FOLDER):
            folders.append(source_root / path.relative_to(CODE_FOLDER))
    return list(dict.fromkeys(folders))


def check_places(
    spec: RunSpec, before: Surroundings, own: Collection[str], docker: Mapping[str, Any]
) -> None:
    """Refuse modules that a sandbox would not find.

    Args:
        own: The modules of the pipeline and of its steps, which a sandbox imports by name.
        docker: The fields of its `DockerSettings`, with the packages gathered from them.

    Raises:
        UsageError: One comes from an editable installation, from PYTHONPATH, or from a folder
            below the source root that is not on the path there.
    """
    if docker.get("local_project_install_command"):
        return
    root = spec.source_root.resolve()
    folders = code_folders(root, docker)
    imported = {*own, *(sys.modules.keys() - before.modules)}
    for name in sorted(imported, key=lambda name: (name.count("."), name)):
        file = getattr(sys.modules.get(name), "__file__", None)
        # `torch.ops` says that it is from "_ops.py"; Python itself says absolute paths.
        if file is None or not Path(file).is_absolute():
            continue
        if name in _COMMAND or name.partition(".")[0] in _OURS:
            continue
        place = Path(file).resolve()
        if place in _expected(folders, name) or _is_installed(place, name, docker):
            continue
        folder = place.parents[len(name.split(".")) - (place.name != "__init__.py")]
        # What the code itself adds to the path, it adds in a sandbox too.
        if name in own or folder in before.path or _is_editable(place):
            raise UsageError(
                f"The module '{name}' is imported from {place}, and not from the source root"
                f" {spec.source_root}: a sandbox would not find it.",
                hint=_hint(folder, spec),
            )


def _hint(folder: Path, spec: RunSpec) -> str:
    root = spec.source_root.resolve()
    if folder.is_relative_to(root):
        name = folder.relative_to(root)
        file = module_file(spec.pipeline.rpartition(".")[0], root)
        move = spec.hint_to_move_root(folder, _pipeline_from(folder, file, spec))
        return (
            f"{move}, the folder that it is in. Or, if the steps read files beside {name} too,"
            f" 'PYTHONPATH: {name}' in the run spec below 'settings: docker: environment:'."
        )
    return (
        "It comes from PYTHONPATH or from an editable installation. Set 'source_root:' to a folder"
        " that has all of the code, or add its package to the requirements of the Docker settings."
    )


def _expected(folders: Collection[Path], name: str) -> Iterator[Path]:
    for folder in folders:
        path = folder.joinpath(*name.split("."))
        yield from (path.with_name(f"{path.name}.py").resolve(), (path / "__init__.py").resolve())


def _is_installed(place: Path, name: str, docker: Mapping[str, Any]) -> bool:
    """Return whether a sandbox has a module: of Python's, or of a package."""
    if place.suffix != ".py" or not _INSTALLED.isdisjoint(place.parts):
        return True
    if any(place.is_relative_to(folder) for folder in _PYTHON):
        return True
    # Only where a pipeline is compiled: it imports ZenML.
    from modalrun.zenml_api.lazy_integrations import packages_distributions

    # An editable installation here may be an ordinary one there.
    asked = canonicalize_name(json.dumps(docker, default=str))
    top = name.partition(".")[0]
    packages = packages_distributions().get(top, [top])
    return any(canonicalize_name(package) in asked for package in packages)


def _is_editable(place: Path) -> bool:
    """Return whether a file belongs to an editable installation."""
    for distribution in importlib.metadata.distributions():
        about = json.loads(distribution.read_text("direct_url.json") or "{}")
        if about.get("dir_info", {}).get("editable"):
            url = urlsplit(about["url"])
            if place.is_relative_to(Path(url2pathname(url.path))):
                return True
    return False


def _is_in(folder: Path, module: str) -> bool:
    with contextlib.suppress(OSError):
        return (folder / f"{module}.py").is_file() or (folder / module / "__init__.py").is_file()
    return False
