"""How sure each convention of a UMI replay buffer is."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.containers.zarr_store import ZarrStore
from adapters.umi.buffer import RATE_HZ, max_width_m
from schemas.fact import Certainty, Fact, fact

PLAN = "real-stanford/universal_manipulation_interface:scripts_slam_pipeline/06_generate_dataset_plan.py"


def facts_of(store: ZarrStore, sides: Mapping[str, int], locator: Mapping[str, str]) -> list[Fact]:
    stated = "rate_hz" in locator
    how, source = (
        (Certainty.DOCUMENTED, "the caller's option") if stated else (Certainty.CODE, PLAN)
    )
    widths = ", ".join(f"{s} {max_width_m(store, r):.4f} m" for s, r in sides.items())
    scale = f"width / widest in the store: {widths}"
    facts = [
        fact("rate", str(locator.get("rate_hz", RATE_HZ)), how, source, for_actions=True),
        fact("eef_rotation_form", "rotation vector", Certainty.CODE, PLAN, for_actions=True),
        fact("eef_frame", "TCP in the table tag's frame", Certainty.CODE, PLAN, for_actions=True),
        fact("gripper_polarity", "wide is open", Certainty.CODE, PLAN, for_actions=True),
        # A wrong scale shifts the opening by a constant factor; which end is open stays right.
        fact("gripper_scale", scale, Certainty.INFERRED, "maximum of this store"),
        fact("action_kind", "achieved: nothing is commanded", Certainty.CODE, PLAN),
    ]
    if len(sides) == 2:
        facts.append(fact("sides", "robot0 is right, robot1 is left", Certainty.CODE, PLAN))
    return facts
