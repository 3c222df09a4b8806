"""Clients that vanish, stall, flood, or send pictures of absurd shapes: their own streams suffer, no others."""

import asyncio
import io
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from svlm_jax.serving import realtime
from svlm_jax.serving.app import create_app
from svlm_jax.serving.limits import Limits
from svlm_jax.serving.realtime import RealtimeConnection
from svlm_jax.serving.snapshots import Snapshots
from svlm_jax.serving.stream import Event
from tests.serving.fakes import FakeExecutor, fake_hub
from tests.serving.test_api import HOST, jpeg, receive, send, show_all, watch


def test_a_client_that_vanishes_gives_its_lane_back_and_may_return(tmp_path, monkeypatch):
    monkeypatch.setattr("svlm_jax.serving.hub.SWEEP", 0.05)
    snapshots = Snapshots(tmp_path / "streams", like=FakeExecutor().like, fingerprint="f")
    hub = fake_hub(snapshots=snapshots, limits=Limits(idle_seconds=0.3))
    hub.start()
    stream, _ = hub.connect(None)
    show_all(stream, 0, 3)
    hub.disconnect(stream)  # what the connection does when its socket is gone
    end = time.monotonic() + 60
    while not stream.closed and time.monotonic() < end:
        time.sleep(0.02)
    assert stream.closed and not hub.streams and hub.scheduler.executor.used == 0
    again, resumed = hub.connect(stream.id)
    assert resumed["position"] == 3.0 and again.chunks == 3
    hub.stop()


def test_a_client_that_reads_nothing_is_cut_off_and_fills_no_memory(monkeypatch):
    monkeypatch.setattr(realtime, "SLOW", 20)

    async def stalled():
        closed, forever = [], asyncio.Event()

        async def close(code, reason):
            closed.append((code, reason))

        async def send_text(_):
            await forever.wait()

        socket = SimpleNamespace(send_text=send_text, close=close, headers={})
        connection = RealtimeConnection(socket, fake_hub())
        sender = asyncio.create_task(connection._send())
        for number in range(500):
            connection._post(Event("status", {"message": f"{number}"}))
            await asyncio.sleep(0)
        assert connection._out.qsize() <= 20
        assert closed[0] == (1008, "the client reads too slowly")
        sender.cancel()

    asyncio.run(stalled())


def test_a_flood_of_one_client_leaves_the_others_in_time():
    """One client sends pictures as fast as it can; the other's captions come, none late."""
    client = TestClient(create_app(fake_hub(limits=Limits(frames_per_second=10))), base_url=HOST)
    with client, client.websocket_connect("/v1/realtime") as flood, client.websocket_connect("/v1/realtime") as calm:
        watch(calm, 1)
        for i in range(300):
            send(flood, type="svlm.frame", time=i / 100)
            flood.send_bytes(jpeg())
        captions = watch(calm, 3, first=1)
        assert len(captions) == 3 and not any(caption["svlm"]["missed"] for caption in captions)
        codes = {json.loads(flood.receive_text()).get("error", {}).get("code") for _ in range(250)}
        assert "too_many_frames" in codes


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (640, 480)])
def test_pictures_of_any_shape_become_what_the_model_sees(size):
    out = io.BytesIO()
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(out, "PNG")
    with TestClient(create_app(fake_hub()), base_url=HOST) as client, client.websocket_connect("/v1/realtime") as socket:
        receive(socket, "session.created")
        for i in range(2):
            send(socket, type="svlm.frame", time=i / 2)
            socket.send_bytes(out.getvalue())
        assert receive(socket, "response.done")["response"]["status"] == "completed"


def test_a_clock_that_jumps_costs_no_other_second():
    with TestClient(create_app(fake_hub()), base_url=HOST) as client, client.websocket_connect("/v1/realtime") as socket:
        watch(socket, 2)
        for stamp in (1e9, 1e9 + 0.5, -50.0, -49.5):
            send(socket, type="svlm.frame", time=stamp)
            socket.send_bytes(jpeg())
        starts = [receive(socket, "response.done")["response"]["svlm"]["start"] for _ in range(2)]
        assert starts == [2.0, 3.0]
