"""Publishes numbered frames over RTSP in real time: `python -m tests.video.rtsp_peer URL SECONDS`.

A program of its own: FFmpeg's RTSP handshake holds Python's lock, so both ends cannot live in one process.
"""

import sys
import time
from fractions import Fraction

import av

from tests.clips import picture

RATE = 24


def publish(url: str, seconds: float) -> None:
    with _connect(url) as container:
        stream = container.streams.video[0]
        begin = time.monotonic()
        for i in range(int(RATE * seconds)):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            time.sleep(max(0.0, begin + i / RATE - time.monotonic()))


def _connect(url: str) -> av.container.OutputContainer:
    deadline = time.monotonic() + 10
    while True:
        container = av.open(url, "w", format="rtsp", options={"rtsp_transport": "tcp"})
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.height, stream.width, _ = picture(0).shape
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", 6
        try:
            container.start_encoding()
            return container
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    publish(sys.argv[1], float(sys.argv[2]))
