"""Which packets of a video must be decoded so that certain pictures come out exactly as if all were.

Left out are pictures that no timestep shows and nothing refers to, and what lies behind the last picture shown of a group, up to where decoding
begins anew (`ingest.video.packet_syntax`). A packet is decided on when it comes: those whose use is still open wait in a list of bounded
length, so memory does not depend on the length of a video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from av.packet import Packet
from av.video.stream import VideoStream

from ingest.video.packet_syntax import PacketRole, reader_of

MAX_WAITING = 256  # packets
MAX_WAITING_BYTES = 32 * 2**20


class NeededPackets:
    """Passes on what the due pictures depend on, in decode order, and ends behind the last of them. `num_left_out` counts the rest."""

    def __init__(self, stream: VideoStream, is_due: Callable[[int], bool], num_due: int) -> None:
        context = stream.codec_context
        self._role = reader_of(context.codec.canonical_name, context.extradata)
        self._is_due = is_due
        self._num_due = num_due
        self._waiting: list[Packet[VideoStream]] = []
        self._num_waiting_bytes = 0
        self._is_first = True  # decoders learn from the first picture (its x264 version, for one)
        self.num_left_out = 0

    def among(self, packets: Iterable[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
        """The needed ones of `packets`, which start with a keyframe."""
        rest = iter(packets)
        if self._role is not None:
            for packet in rest:
                if packet.has_sidedata(
                    "new_extradata"
                ):  # other parameters: their reader is not ours
                    yield from self._taken(packet)
                    break
                yield from self._decided(packet, self._role(memoryview(packet)))
                if not self._num_due:
                    return
        yield from rest

    def _decided(
        self, packet: Packet[VideoStream], role: PacketRole
    ) -> Iterator[Packet[VideoStream]]:
        """Nothing yet, or this packet behind those it may refer to."""
        assert packet.pts is not None
        is_due = self._is_due(packet.pts)
        if role is PacketRole.RESTART:
            self.num_left_out += len(self._waiting)
            self._clear()
        if is_due or self._is_first or role is PacketRole.SETUP:
            self._is_first = False
            self._num_due -= is_due
            yield from self._taken(packet)
        elif role is PacketRole.UNREFERENCED:
            self.num_left_out += 1
        else:
            self._waiting.append(packet)
            self._num_waiting_bytes += packet.size
            if len(self._waiting) > MAX_WAITING or self._num_waiting_bytes > MAX_WAITING_BYTES:
                yield from self._taken()

    def _taken(self, *packets: Packet[VideoStream]) -> Iterator[Packet[VideoStream]]:
        waiting = (*self._waiting, *packets)
        self._clear()
        yield from waiting

    def _clear(self) -> None:
        self._waiting, self._num_waiting_bytes = [], 0
