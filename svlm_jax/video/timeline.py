"""One timeline for all packets of a file: what is believed of their time stamps, and where the picture goes on by itself.

Time stamps are claims. A step of the picture's stamps, from one packet to the next in decoding order, is taken

    0 to 1 s                  as it is
    back, or not at all       as a disorder, if one of the next four packets is ahead again: this packet follows its neighbour.
                              Else as a new clock: the picture goes on at its own rate, and so do the stamps behind it.
    forward by more than 1 s  as one absurd stamp, if one of the next four packets is back where it was;
                              as a return to an earlier clock, if that fits;
                              as a still, if sound goes on through it; if nothing speaks against it and it is at most `HOLD`;
                              or if the container stores durations (MP4), where a stamp cannot jump by accident;
                              as a new clock, if the sound jumps with the picture, and in all other cases.

Stills must be paid for: all together last at most `HOLD` and one second for every `PRICE` bytes read. A live source is not
read ahead: its stamps may go back by half a second and forward by two, everything else is a new clock, and the wall clock
says what was lost. Packets without stamps pass as they are; their pictures are counted.
"""

import collections
import statistics
from collections.abc import Iterator
from fractions import Fraction

import av

QUIET = 1.0  # s; a step that needs no explanation
HOLD = 120.0  # s; the longest still that is believed without evidence
PRICE = 32  # bytes that pay for a second of still picture
AHEAD = 4  # packets of the picture that say whether a stamp was one odd one
AHEAD_WITH_SOUND = 32  # ... and whether the sound jumps too
MOST_AHEAD = 400  # packets of all streams that are read ahead
LIVE_BACK, LIVE_FORWARD = 0.5, 2.0  # s
REORDERED = 20  # frames; a picture is not shown later than so many after its decoding
CLOCKS = 8  # earlier clocks that are remembered
IN_STEP = 2.0  # s; how near to the picture sound is interleaved


class Timeline:
    """Repairs the stamps of packets in the order of the file.

    Args:
      picture, sound: the streams whose packets are repaired; those of others pass.
      rate: frames per second, as far as known.
      live: nothing may be read ahead.
      durations: the container stores how long each picture is shown.
    """

    def __init__(
        self, picture: av.VideoStream, sound: av.AudioStream | None, rate: float | None, *, live: bool, durations: bool
    ):
        self._picture, self._sound = picture.index, None if sound is None else sound.index
        self._base = picture.time_base or Fraction(1, 1000)
        self._live, self._durations = live, durations
        self._given_step = self._ticks(1 / rate) if rate else 0
        self._steps: collections.deque[int] = collections.deque(maxlen=31)
        self._offsets: collections.deque[int] = collections.deque([0], maxlen=CLOCKS)  # ticks; the present clock is the last
        self._last: int | None = None  # ticks on the timeline; the newest decoding stamp of the picture
        self._undated = 0  # packets in a row that say only when they are shown, not when they are decoded
        self._stuck = 0  # packets in a row with the same stamp
        self._held = 0.0  # s; of all stills so far
        self._bytes = 0
        self._run: tuple[float, float] | None = None  # s, as stamped; sound without a gap from, to
        self._jump: tuple[float, float] | None = None  # s, as stamped; the newest jump of the sound from, to
        self._heard: float | None = None  # s on the timeline; end of the newest packet of sound
        self._ahead: collections.deque[av.Packet] = collections.deque()
        self._packets: Iterator[av.Packet] = iter(())
        self._problem: Exception | None = None

    def repair(self, packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
        """The same packets, without sound that belongs nowhere. What ends `packets` is raised behind the last of them."""
        self._packets = packets
        while (packet := self._ahead.popleft() if self._ahead else self._read()) is not None:
            self._bytes += packet.size
            if packet.stream_index == self._picture:
                self._place_picture(packet)
            elif packet.stream_index == self._sound and not self._place_sound(packet):
                continue
            yield packet
        if self._problem is not None:
            raise self._problem

    @property
    def step(self) -> int:
        """Ticks between two pictures, at the present rate."""
        step = round(statistics.fmean(self._steps)) if self._steps else self._given_step
        return max(1, min(step, self._ticks(QUIET)))

    @property
    def paid(self) -> float:
        """Seconds that a picture may yet stand still."""
        return HOLD + self._bytes / PRICE - self._held

    # ------------------------------------------------------------------------------------------- the picture

    def _place_picture(self, packet: av.Packet) -> None:
        stamp = _stamp(packet)
        if stamp is None:
            if self._last is not None:
                self._last += self.step
            return
        self._undated = 0 if packet.dts is not None else self._undated + 1
        if 0 < self._undated <= REORDERED:  # shown in another order than decoded: no clock
            packet.pts = stamp + self._offsets[-1]
            return
        shift = self._first_shift(stamp) if self._last is None else self._shift(stamp, packet)
        moment = stamp + shift
        if self._last is not None and 0 <= moment - self._last <= self._ticks(QUIET):
            self._steps.append(moment - self._last)
        self._last = moment if self._last is None else max(moment, self._last)
        if packet.dts is not None:
            packet.dts += shift
        if packet.pts is not None:
            packet.pts += shift
            if packet.dts is not None and not self._near(packet.pts, packet.dts):
                packet.pts = None  # the decoder goes by the other one

    def _near(self, pts: int, dts: int) -> bool:
        most = max(self._ticks(QUIET), REORDERED * self.step)
        return -most <= pts - dts <= most

    def _first_shift(self, stamp: int) -> int:
        """Ticks to add to the first stamp: none, unless those that follow are far behind it and agree with one another."""
        following = [] if self._live else self._look()[:2]
        if len(following) == 2 and following[0] < stamp - self._ticks(QUIET) and following[1] >= following[0]:
            return following[0] - self.step - stamp
        return 0

    def _shift(self, stamp: int, packet: av.Packet) -> int:
        """Ticks to add to a stamp; a new clock is remembered."""
        assert self._last is not None
        offset = self._offsets[-1]
        delta = stamp + offset - self._last
        seconds = float(delta * self._base)
        self._stuck = self._stuck + 1 if delta == 0 else 0
        most, least = QUIET, -float(self.step * self._base) / 2
        if self._live:
            most, least = LIVE_FORWARD, -LIVE_BACK
        elif packet.dts is None:  # in the order of decoding, stamps of presentation go back and forth
            least = -QUIET
        if least <= seconds <= most and not (delta == 0 and self._stands_still(packet)):
            return offset
        follows = self._last + self.step - stamp
        known = self._known(follows)
        if known is not None:
            self._begin(known)
            return known
        if not self._live:
            following = [other + offset - self._last for other in self._look()]
            soon = self._ticks(QUIET) + AHEAD * self.step
            if any(0 < other < (soon if delta <= 0 else min(soon, delta)) for other in following[:AHEAD]):
                return self._last - stamp if delta <= 0 else follows  # this one only
            if delta > 0 and self._is_still(seconds, stamp):
                self._held += seconds
                return offset
        self._begin(follows)
        return follows

    def _stands_still(self, packet: av.Packet) -> bool:
        """Whether the stamps no longer move at all."""
        if self._live or packet.dts is None:
            return self._stuck >= AHEAD
        stamp = _stamp(packet)
        following = self._look()[:AHEAD]
        return len(following) == AHEAD and all(other == stamp for other in following)

    def _known(self, follows: int) -> int | None:
        """The earlier clock that lets the picture go on as it should, so that no rest of it stays."""
        near = self._ticks(0.1) + 2 * self.step
        fitting = [o for o in list(self._offsets)[:-1] if -self.step < o - follows <= near]  # no earlier than the last one
        return min(fitting, key=lambda offset: abs(offset - follows), default=None)

    def _begin(self, offset: int) -> None:
        if offset in self._offsets:
            self._offsets.remove(offset)
        self._offsets.append(offset)

    def _is_still(self, seconds: float, stamp: int) -> bool:
        """Whether nothing new was to be seen for so long before a packet."""
        assert self._last is not None
        if seconds > self.paid:
            return False
        since, until = float((self._last - self._offsets[-1]) * self._base), float(stamp * self._base)
        run, jump = self._run, self._jump
        for packet in self._ahead:
            if packet.stream_index == self._sound:
                run, jump = _heard(packet, run, jump)
        if run is not None and run[0] <= since + QUIET and run[1] >= until - IN_STEP:
            return True
        if jump is not None and abs(jump[0] - since) <= IN_STEP and abs(jump[1] - until) <= IN_STEP:
            return False
        return self._durations or seconds <= HOLD

    # --------------------------------------------------------------------------------------------- the sound

    def _place_sound(self, packet: av.Packet) -> bool:
        """Puts sound where its picture is; False for sound that belongs to no clock of the picture's."""
        stamp = _stamp(packet)
        if stamp is None or packet.time_base is None:
            return False
        self._run, self._jump = _heard(packet, self._run, self._jump)
        begin, length = float(stamp * packet.time_base), float((packet.duration or 0) * packet.time_base)
        expected = begin if self._heard is None else self._heard
        offsets = [float(offset * self._base) for offset in list(self._offsets)[-2:]]
        offset = min(offsets, key=lambda offset: abs(begin + offset - expected))
        moment = begin + offset
        seen = None if self._last is None else float(self._last * self._base)
        elsewhere = abs(moment - expected) > QUIET and seen is not None and abs(moment - seen) > IN_STEP
        if self._heard is not None and (elsewhere or moment < self._heard - max(length, 0.01)):
            return False
        self._heard = moment + length
        ticks = round(offset / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
        return True

    # ----------------------------------------------------------------------------------------- reading ahead

    def _read(self) -> av.Packet | None:
        if self._problem is not None:
            return None
        try:
            return next(self._packets, None)
        except Exception as problem:  # behind what was read before it
            self._problem = problem
            return None

    def _look(self) -> list[int]:
        """Stamps of the next packets of the picture, as they are in the file."""
        wanted = AHEAD if self._sound is None else AHEAD_WITH_SOUND
        while True:
            stamps = [_stamp(packet) for packet in self._ahead if packet.stream_index == self._picture and packet.size]
            if len(stamps) >= wanted or len(self._ahead) >= MOST_AHEAD or (packet := self._read()) is None:
                return [stamp for stamp in stamps if stamp is not None]
            self._ahead.append(packet)

    def _ticks(self, seconds: float) -> int:
        return max(1, round(seconds / self._base))


def _stamp(packet: av.Packet) -> int | None:
    """When a packet is to be decoded, else shown, in ticks of its stream."""
    return packet.pts if packet.dts is None else packet.dts


def _heard(
    packet: av.Packet, run: tuple[float, float] | None, jump: tuple[float, float] | None
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """`_run` and `_jump` with one more packet of sound."""
    stamp = _stamp(packet)
    if stamp is None or packet.time_base is None:
        return run, jump
    begin, end = float(stamp * packet.time_base), float((stamp + (packet.duration or 0)) * packet.time_base)
    if run is None or abs(begin - run[1]) > QUIET:
        return (begin, end), jump if run is None else (run[1], begin)
    return (run[0], max(run[1], end)), jump
