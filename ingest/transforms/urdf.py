"""A URDF as a tree of links and joints: read within bounds, without meshes, and cut down to what moves a tip.

Source of the format: ROS wiki, urdf/XML/{robot,link,joint} (doc): `origin` is the joint frame in its parent link, rpy is
roll about x, pitch about y, yaw about z of fixed axes; the default axis is x. Visuals, collisions and inertias are not
looked at, so `package://` paths are never opened.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from xml.etree import ElementTree

from schemas.errors import ConfigError, system_error_text

MAX_BYTES = 32 << 20
MAX_JOINTS = 10_000
FREE = "1e9"  # limits are the controller's matter; a recorded position is taken as it is
MOVING = frozenset({"revolute", "continuous", "prismatic"})
AXIS_X = "1 0 0"
NO_LINE = frozenset({"planar", "floating"})  # joints of more than one degree of freedom


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """One joint; texts are kept as the file has them, already known to be three finite numbers each."""

    name: str
    kind: str
    parent: str
    child: str
    xyz_m: str
    rpy_rad: str
    axis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Urdf:
    """A robot's links and the joint above each link but the root."""

    name: str  # of the file
    digest: str  # sha256:<hex> of its bytes
    links: frozenset[str]
    above: dict[str, Joint]

    def path(self, link: str) -> tuple[Joint, ...]:
        """Joints from the root down to `link`."""
        joints: list[Joint] = []
        while link in self.above:
            joints.append(self.above[link])
            link = joints[-1].parent
        return tuple(reversed(joints))

    def between(self, base: str, tip: str) -> tuple[Joint, ...]:
        """Joints that move `tip` in `base`, whichever is nearer to the root."""
        up, down = self.path(base), self.path(tip)
        shared = {joint.name for joint in up} & {joint.name for joint in down}
        return tuple(joint for joint in (*up, *down) if joint.name not in shared)

    def link(self, name: str, what: str) -> str:
        """`name` itself.

        Raises:
            ConfigError: there is no such link.
        """
        if name in self.links:
            return name
        problem = f"no link {name!r} ({what}) {nearest(name, self.links)}"
        raise ConfigError(problem, where=self.name)

    def cut_to(self, links: Iterable[str]) -> str:
        """The URDF of the paths to `links` alone: geometry only, no limits, continuous joints as revolute ones."""
        joints = {joint.name: joint for link in links for joint in self.path(link)}
        robot = ElementTree.Element("robot", name="cut")
        kept = {end: None for j in joints.values() for end in (j.parent, j.child)}
        for link in kept or dict.fromkeys(links):
            ElementTree.SubElement(robot, "link", name=link)
        for j in joints.values():
            kind = "revolute" if j.kind == "continuous" else j.kind
            node = ElementTree.SubElement(robot, "joint", name=j.name, type=kind)
            ElementTree.SubElement(node, "origin", xyz=j.xyz_m, rpy=j.rpy_rad)
            ElementTree.SubElement(node, "parent", link=j.parent)
            ElementTree.SubElement(node, "child", link=j.child)
            if kind in MOVING:
                ElementTree.SubElement(node, "axis", xyz=j.axis)
                limit = {"lower": f"-{FREE}", "upper": FREE, "effort": FREE, "velocity": FREE}
                ElementTree.SubElement(node, "limit", limit)
        return ElementTree.tostring(robot, encoding="unicode")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a message: the nearest of `known`, and all of them while they are few."""
    known = sorted(known)
    near = get_close_matches(name, known, n=3, cutoff=0.4)
    listed = ", ".join(known[:30]) + (f" and {len(known) - 30} more" if len(known) > 30 else "")
    return f"(nearest: {', '.join(near) or 'none'}; known: {listed or 'none'})"


class _Declares(Exception):
    """A document type: the door to entities that grow without bound, in whatever encoding it is written."""


class _NoDoctype(ElementTree.TreeBuilder):
    """Builds the tree, and refuses a document type where the parser meets it, whatever the encoding."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _Declares


def read_urdf(path: Path) -> Urdf:
    """Read a URDF.

    Raises:
        ConfigError: unreadable, over 32 MiB, no URDF (a xacro, say), a joint without what it needs, or no tree.
    """
    where = path.name
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {system_error_text(error, str(path))}", where=str(path)
        ) from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"more than {MAX_BYTES} bytes, too large for a URDF", where=where)
    try:
        robot = ElementTree.fromstring(data, parser=ElementTree.XMLParser(target=_NoDoctype()))
    except _Declares as error:
        raise ConfigError(
            "the file declares XML entities, which are refused", remedy="remove them", where=where
        ) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding
        raise ConfigError(f"not valid XML: {error}", where=where) from error
    if robot.tag != "robot":
        raise ConfigError(
            f"not a URDF: the root element is <{robot.tag[:60]}>, not <robot>",
            remedy="pass a URDF file with --urdf",
            where=where,
        )
    links = [link.get("name", "") for link in robot.findall("link")]
    nodes = robot.findall("joint")
    if len(set(links)) != len(links) or "" in links or not links or len(nodes) > MAX_JOINTS:
        problem = (
            f"{len(links)} links with {len(set(links))} different names and {len(nodes)} joints"
        )
        raise ConfigError(f"{problem}; every link needs a unique name", where=where)
    above: dict[str, Joint] = {}
    for joint in (_joint(node, frozenset(links), where) for node in nodes):
        if joint.child in above:
            problem = f"link {joint.child!r} is a child of joints {above[joint.child].name!r} and {joint.name!r}"
            raise ConfigError(f"{problem}; expected a tree", where=where)
        above[joint.child] = joint
    _check_tree(links, above, where)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Urdf(name=where, digest=digest, links=frozenset(links), above=above)


def _joint(node: ElementTree.Element, links: frozenset[str], where: str) -> Joint:
    name, kind = node.get("name", ""), node.get("type", "")
    ends = {}
    for end in ("parent", "child"):
        element = node.find(end)
        ends[end] = "" if element is None else element.get("link", "")
        if ends[end] not in links:
            hint = nearest(ends[end], links)
            raise ConfigError(
                f"joint {name!r}: {end} {ends[end]!r} is not a link {hint}", where=where
            )
    if not name or kind not in MOVING | NO_LINE | {"fixed"}:
        hint = (
            "a xacro must be expanded first" if "$" in kind + name else "not a joint type of URDF"
        )
        raise ConfigError(f"joint {name!r} of type {kind!r}: {hint}", where=where)
    origin, axis = node.find("origin"), node.find("axis")
    at = f"{where}: joint {name!r}"
    return Joint(
        name=name,
        kind=kind,
        parent=ends["parent"],
        child=ends["child"],
        xyz_m=_triple(origin, "xyz", "0 0 0", at),
        rpy_rad=_triple(origin, "rpy", "0 0 0", at),
        axis=_triple(axis if kind in MOVING else None, "xyz", AXIS_X, at),
    )


def _triple(node: ElementTree.Element | None, key: str, default: str, where: str) -> str:
    text = default if node is None else node.get(key, default)
    try:
        values = [float(part) for part in text.split()]
    except ValueError:
        values = []
    is_zero_axis = default == AXIS_X and not any(values)
    if len(values) != 3 or not all(map(math.isfinite, values)) or is_zero_axis:
        problem = f"{key}={text[:80]!r}; expected three numbers"
        raise ConfigError(f"{problem} (a xacro must be expanded first)", where=where)
    return " ".join(repr(value) for value in values)


def _check_tree(links: list[str], above: dict[str, Joint], where: str) -> None:
    """Joint names are unique, there is one root, and every link hangs below it."""
    names = [joint.name for joint in above.values()]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"two joints are named {twice!r}", where=where)
    roots = [link for link in links if link not in above]
    if len(roots) != 1:
        problem = f"{len(roots)} root links {roots[:10]}"
        raise ConfigError(f"{problem}; expected one root", where=where)
    below: dict[str, list[str]] = {}
    for joint in above.values():
        below.setdefault(joint.parent, []).append(joint.child)
    reached, waiting = 0, roots
    while waiting:
        reached += 1
        waiting = waiting[:-1] + below.get(waiting[-1], [])
    if reached != len(links):
        raise ConfigError(f"{len(links) - reached} links form a loop; expected a tree", where=where)
