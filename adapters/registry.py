"""Source name -> where its adapter is; loaded only when asked for, so that optional packages stay optional."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module

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
    "humanoid_everyday_lerobot": "adapters.lerobot.named:HumanoidEveryday",
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


def adapter_for(source: str) -> Adapter:
    """The adapter registered as `source`, or the one at an import string `module:Class` of your own.

    Raises:
        ConfigError: no such source, with the nearest names, or nothing importable at the import string.
    """
    where = ADAPTERS.get(source, source)
    module, _, name = where.partition(":")
    if not name:
        near = get_close_matches(source, ADAPTERS, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(
            f"no source named {source!r}{hint} (known: {', '.join(sorted(ADAPTERS))})"
        )
    try:
        adapter: Adapter = getattr(import_module(module), name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"adapter {where!r} cannot be imported: {error}") from error
    if not all(hasattr(adapter, name) for name in ("survey", "discover", "load", "version")):
        raise ConfigError(f"{where!r} is no adapter; expected the names of adapters/base.py")
    return adapter
