"""Source name -> where its adapter is. An adapter is loaded when it is used, so that optional packages stay optional.

A source is a name of `ADAPTERS`, a name that an installed package gives in the entry point group `eicorpus.adapters`, `module:Class`, or
`FILE.py:Class`. A module of one's own folder travels to workers as `FOLDER::module:Class`.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from adapters.base import Adapter
from schemas.errors import ConfigError

ADAPTERS = {
    "agibot_world": "adapters.agibot_world.adapter:AgiBotWorld",
    "aloha": "adapters.aloha.adapter:Aloha",
    "arctic": "adapters.arctic.adapter:Arctic",
    "aria": "adapters.aria.adapter:Aria",
    "behavior_1k": "adapters.lerobot.named:Behavior1K",
    "droid": "adapters.droid.adapter:Droid",
    "ego4d": "adapters.ego4d.adapter:Ego4D",
    "ego_exo4d": "adapters.ego_exo4d.adapter:EgoExo4D",
    "egocentric_10k": "adapters.egocentric_10k:Egocentric10K",
    "egodex": "adapters.egodex.adapter:EgoDex",
    "egome": "adapters.egome.adapter:EgoMe",
    "epic_kitchens": "adapters.epic_kitchens.adapter:EpicKitchens",
    "hoi4d": "adapters.hoi4d.adapter:Hoi4D",
    "holoassist": "adapters.holoassist.adapter:HoloAssist",
    "hot3d": "adapters.hot3d.adapter:Hot3D",
    "hot3d_clips": "adapters.hot3d.clips:Hot3DClips",
    "humanoid_everyday": "adapters.humanoid_everyday.adapter:HumanoidEveryday",
    "interndata_a1_raw": "adapters.interndata_a1_raw.adapter:InternDataA1Raw",
    "galaxea": "adapters.lerobot.named:Galaxea",
    "humanoid_everyday_lerobot": "adapters.lerobot.named:HumanoidEverydayLeRobot",
    "interndata_a1": "adapters.lerobot.named:InternDataA1",
    "lerobot": "adapters.lerobot.adapter:LeRobot",
    "let_kuavo": "adapters.let_kuavo.adapter:LetKuavo",
    "metaworld_hdf5": "adapters.metaworld_hdf5.adapter:MetaWorldHdf5",
    "oakink2": "adapters.oakink2.adapter:OakInk2",
    "oxe": "adapters.oxe.adapter:OpenXEmbodiment",
    "rh20t": "adapters.rh20t.adapter:Rh20t",
    "rh20t_human": "adapters.rh20t_human:Rh20tHuman",
    "robocasa_gr1": "adapters.lerobot.named:RoboCasaGr1",
    "robocoin": "adapters.lerobot.named:RoboCoin",
    "robomimic": "adapters.robomimic.adapter:Robomimic",
    "robomind": "adapters.robomind.adapter:RoboMind",
    "robotwin": "adapters.robotwin.adapter:RoboTwin",
    "ssv2": "adapters.ssv2:SomethingSomethingV2",
    "taco": "adapters.taco.adapter:Taco",
    "taste_rob": "adapters.taste_rob:TasteRob",
    "umi": "adapters.umi.adapter:Umi",
    "video_folder": "adapters.video_folder:VideoFolder",
    "vitra": "adapters.vitra.adapter:Vitra",
}


# Sources of many datasets: the function that finds the datasets a name may mean.
_DATASETS_OF = {"oxe": "adapters.oxe.registry:sets_called"}

ENTRY_POINTS = "eicorpus.adapters"  # the group in which installed packages name their adapters
FOLDER_MARK = "::"


@cache
def adapters_of_packages() -> dict[str, str]:
    """Source name -> `module:Class` of the adapters that installed packages bring; a name of `ADAPTERS` stays ours."""
    from importlib.metadata import entry_points

    declared = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    return {name: declared[name] for name in sorted(declared) if name not in ADAPTERS}


def resolved(source: str, folder: Path) -> str:
    """`source` in a form that a worker in another folder understands.

    Args:
        folder: where `FILE.py:Class` starts from, and where `module:Class` is looked for when no installed module is called so.
    """
    module, mark, name = source.rpartition(":")
    if not mark or FOLDER_MARK in source:
        return source
    if module.endswith(".py"):
        path = (folder / module).absolute()
        if not path.is_file():
            raise ConfigError("no such file; expected FILE.py:Class", where=str(path))
        return f"{path.parent}{FOLDER_MARK}{path.stem}:{name}"
    first = module.partition(".")[0]
    is_here = (folder / f"{first}.py").is_file() or (folder / first).is_dir()
    if is_here and not _is_installed(first):
        return f"{folder.absolute()}{FOLDER_MARK}{source}"
    return source


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def adapter_for(source: str) -> Adapter:
    """The adapter of a source.

    Raises:
        ConfigError: no such source, with the nearest names, or nothing importable at the import string.
    """
    where = ADAPTERS.get(source) or adapters_of_packages().get(source, source)
    folder, mark, rest = where.rpartition(FOLDER_MARK)
    module, _, name = rest.partition(":")
    if not name:
        raise _unknown(source)
    try:
        loaded = _module_in(Path(folder), module) if mark else import_module(module)
        adapter: Adapter = getattr(loaded, name)()
    except (ImportError, AttributeError, TypeError, SyntaxError) as error:
        raise ConfigError(f"adapter {where!r} cannot be imported: {error}") from error
    if not all(hasattr(adapter, name) for name in ("survey", "discover", "load", "version")):
        raise ConfigError(
            f"{where!r} is not an adapter; it must define the attributes and methods of adapters/base.py"
        )
    return adapter


def dataset_owner(name: str) -> tuple[str, list[str]] | None:
    """The source that reads a dataset called `name`, with the full names that may be meant; None for a source, or an unknown name."""
    if ":" in name or name in ADAPTERS or name in adapters_of_packages():
        return None
    for source, place in _DATASETS_OF.items():
        module, _, function = place.partition(":")
        if datasets := getattr(import_module(module), function)(name):
            return source, datasets
    return None


def _module_in(folder: Path, module: str) -> ModuleType:
    """A module of this very folder. The folder comes last in the path, so that it hides nothing that is installed."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    loaded = import_module(module)
    file = Path(loaded.__file__ or "")
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"the module name {module!r} is already used by {file}",
            remedy="rename your file",
            where=str(folder),
        )
    return loaded


def _unknown(source: str) -> ConfigError:
    known = sorted({*ADAPTERS, *adapters_of_packages()})
    near = get_close_matches(source, known, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return ConfigError(
        f"no source named {source!r}{hint} (known: {', '.join(known)}; for your own adapter use FILE.py:Class)"
    )
