"""The protocols over an executor without a model: what clients send, what they get, and what is refused."""

import base64
import errno
import io
import json
import os
import threading
import time

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from starlette.websockets import WebSocketDisconnect

from svlm_jax.serving.access import Access
from svlm_jax.serving.app import create_app
from svlm_jax.serving.limits import Limits
from svlm_jax.serving.snapshots import Snapshots
from tests.serving.fakes import FakeExecutor, fake_hub

KEY = "a-key-nobody-guesses"
HOST = "http://127.0.0.1"


@pytest.fixture
def serve():
    clients = []

    def make(**options):
        client = TestClient(create_app(fake_hub(**options)), base_url=HOST)
        client.__enter__()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


def jpeg(value=90):
    out = io.BytesIO()
    Image.fromarray(np.full((28, 28, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def receive(socket, kind):
    """The next event of a kind; the others are dropped."""
    for _ in range(200):
        event = json.loads(socket.receive_text())
        if event["type"] == kind:
            return event
        assert event["type"] != "error", event
    raise AssertionError(kind)


def send(socket, **event):
    socket.send_text(json.dumps(event))


def show(socket, seconds, value=90):
    send(socket, type="svlm.frame", time=seconds)
    socket.send_bytes(jpeg(value))
    return receive(socket, "svlm.frame_ack")["svlm"]


def ask(socket, question):
    send(socket, type="conversation.item.create", item={"content": [{"type": "input_text", "text": question}]})
    send(socket, type="response.create", response={})
    receive(socket, "conversation.item.created")


def watch(socket, chunks, first=0):
    """Shows so many seconds, and returns the captions."""
    texts = []
    for i in range(first, first + chunks):
        show(socket, i + 0.0)
        show(socket, i + 0.5)
        texts.append(receive(socket, "response.done")["response"])
    return texts


def test_a_stream_over_the_websocket(serve):
    with serve().websocket_connect("/v1/realtime") as socket:
        session = receive(socket, "session.created")["session"]
        assert session["model"] == "fake" and session["svlm"]["fps"] == 2.0 and session["svlm"]["resumed"] is None
        captions = watch(socket, 2)
        assert [caption["output"][0]["content"][0]["text"] for caption in captions] == ["caption 1", "caption 2"]
        about = captions[1]["svlm"]
        assert about["kind"] == "caption" and (about["start"], about["end"]) == (1.0, 2.0) and 0 <= about["lag"] < 5


def test_pictures_inside_events_and_a_question(serve):
    with serve().websocket_connect("/v1/realtime") as socket:
        watch(socket, 1)
        send(socket, type="conversation.item.create", item={"content": [{"type": "input_text", "text": "What was it?"}]})
        send(socket, type="response.create", response={})
        url = f"data:image/png;base64,{base64.b64encode(jpeg()).decode()}"
        for _ in range(2):
            send(socket, type="conversation.item.create", item={"content": [{"type": "input_image", "image_url": url}]})
            time.sleep(0.6)  # such pictures are stamped on arrival
        done = [receive(socket, "response.done")["response"] for _ in range(2)]
        answer = next(response for response in done if response["svlm"]["kind"] == "answer")
        assert answer["output"][0]["content"][0]["text"] == "answer 1"
        assert answer["svlm"]["question"] == "What was it?" and answer["svlm"]["evidence"][0] == 0.0


def test_words_leave_as_they_are_decoded(serve, monkeypatch):
    monkeypatch.setattr(FakeExecutor, "slice_seconds", 0.2)
    with serve().websocket_connect("/v1/realtime") as socket:
        show(socket, 0.0)
        send(socket, type="svlm.frame", time=0.5)
        socket.send_bytes(jpeg())
        words, at = [], []
        while True:
            event = json.loads(socket.receive_text())
            if event["type"] == "response.output_text.delta":
                words.append(event["delta"])
                at.append(time.monotonic())
            if event["type"] == "response.done":
                assert "".join(words) == "caption 1" and len(words) == 3
                assert time.monotonic() - at[0] > 0.35, "two slices lie between the first word and the end"
                assert event["response"]["svlm"]["first_word_ms"] + 350 < 1e3 * event["response"]["svlm"]["lag"]
                break


def test_captions_are_not_late_for_a_long_answer(serve, monkeypatch):
    """The answer takes 50 slices of 40 ms: two seconds, in which captions of two seconds are told, each in its time."""
    monkeypatch.setattr(FakeExecutor, "slice_seconds", 0.04)
    monkeypatch.setattr(FakeExecutor, "more_to_say", "!" * 192)
    with serve().websocket_connect("/v1/realtime") as socket:
        watch(socket, 1)
        ask(socket, "What was it?")
        begin = time.monotonic()
        for i in range(2, 8):
            time.sleep(max(begin + i / 2 - 1 - time.monotonic(), 0))
            send(socket, type="svlm.frame", time=i / 2)
            socket.send_bytes(jpeg())
        done = []
        while not done or done[-1]["svlm"]["kind"] != "answer":
            done.append(receive(socket, "response.done")["response"])
        captions = [response["svlm"] for response in done[:-1]]
        assert len(captions) >= 2 and not any(about["missed"] for about in captions)
        assert all(about["lag"] < 0.5 for about in captions)
        assert done[-1]["output"][0]["content"][0]["text"] == "answer 1" + "!" * 192


def test_a_cancelled_answer_ends_at_once(serve, monkeypatch):
    monkeypatch.setattr(FakeExecutor, "slice_seconds", 0.05)
    monkeypatch.setattr(FakeExecutor, "more_to_say", "!" * 4000)
    with serve().websocket_connect("/v1/realtime") as socket:
        watch(socket, 1)
        ask(socket, "What was it?")
        show(socket, 1.0)
        show(socket, 1.5)
        begun = receive(socket, "response.created")
        if begun["response"]["svlm"]["kind"] == "caption":
            begun = receive(socket, "response.created")
        send(socket, type="response.cancel", response_id=begun["response"]["id"])
        done = receive(socket, "response.done")["response"]
        if done["svlm"]["kind"] == "caption":
            done = receive(socket, "response.done")["response"]
        assert done["status"] == "cancelled" and len(done["output"][0]["content"][0]["text"]) < 2000


def test_options_change_while_it_runs(serve):
    with serve().websocket_connect("/v1/realtime") as socket:
        watch(socket, 1)
        send(
            socket,
            type="session.update",
            session={"instructions": "Be brief.", "svlm": {"temperature": 0.2, "window": {"vision": 8}}},
        )
        session = receive(socket, "session.updated")["session"]
        assert session["instructions"] == "Be brief." and session["svlm"]["temperature"] == 0.2
        assert session["svlm"]["window"]["vision"] == 8
        send(socket, type="session.update", session={"svlm": {"paused": True}})
        assert receive(socket, "session.updated")["session"]["svlm"]["paused"] is True
        assert show(socket, 5.0)["pending"] == 0


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "bad_json"),
        ("[" * 100_000, "bad_json"),
        ("[]", "bad_event"),
        ('{"type": "session.delete"}', "unknown_event"),
        ('{"type": "session.update"}', "bad_value"),
        ('{"type": "session.update", "session": {"svlm": {"nonsense": 1}}}', "unknown_field"),
        ('{"type": "svlm.frame", "time": "now"}', "bad_time"),
        ('{"type": "response.create"}', "no_question"),
        ('{"type": "conversation.item.create", "item": {"content": [{"type": "input_audio"}]}}', "bad_value"),
        ('{"type": "svlm.source", "source": "rtsp://127.0.0.1/x"}', "source_refused"),
        ('{"type": "svlm.source", "source": "/etc/passwd"}', "source_refused"),
        (b"no picture", "bad_image"),
    ],
)
def test_a_faulty_message_is_one_sentence_and_the_stream_goes_on(serve, message, code):
    with serve().websocket_connect("/v1/realtime") as socket:
        receive(socket, "session.created")
        if isinstance(message, bytes):
            socket.send_bytes(message)
        else:
            socket.send_text(message)
        event = json.loads(socket.receive_text())
        assert event["type"] == "error" and event["error"]["code"] == code and event["error"]["message"]
        assert watch(socket, 1)


def test_a_client_that_sends_only_garbage_is_cut_off(serve):
    with serve().websocket_connect("/v1/realtime") as socket:
        receive(socket, "session.created")
        for _ in range(20):
            socket.send_text("garbage")
        with pytest.raises(WebSocketDisconnect):
            for _ in range(40):
                socket.receive_text()


def test_a_full_server_refuses_clearly_and_others_go_on(serve):
    client = serve(lanes=1)
    with client.websocket_connect("/v1/realtime") as first:
        receive(first, "session.created")
        with client.websocket_connect("/v1/realtime") as second:
            event = json.loads(second.receive_text())
            assert event["error"]["code"] == "session_capacity_exceeded"
        assert watch(first, 1)
        assert client.post("/v1/streams", json={}).status_code == 503


def test_a_server_takes_as_many_streams_as_it_was_measured_to_carry(serve, monkeypatch):
    monkeypatch.setattr(FakeExecutor, "capacity", 1)
    client = serve(lanes=2)
    with client.websocket_connect("/v1/realtime") as first:
        receive(first, "session.created")
        answer = client.post("/v1/streams", json={})
        assert answer.status_code == 503 and "1 streams run, and this server carries 1" in answer.json()["error"]["message"]
        assert "svlm_refused_streams_total 1.0" in client.get("/metrics").text


def test_a_full_disk_keeps_the_stream_and_its_last_snapshot(serve, tmp_path, monkeypatch):
    snapshots = Snapshots(tmp_path / "streams", like=FakeExecutor().like, fingerprint="f")
    hub = fake_hub(snapshots=snapshots)
    hub.start()
    stream, told = hub.open(), []
    stream.subscribe(told.append)
    show_all(stream, 0, 2)
    assert hub.save(stream) and snapshots.read(stream.id)["chunks"] == 2
    show_all(stream, 2, 4)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("svlm_jax.serving.snapshots.orbax_io.save", full)
    assert not hub.save(stream) and snapshots.read(stream.id)["chunks"] == 2
    assert any(event.kind == "status" and "could not be saved" in event.data["message"] for event in told)
    show_all(stream, 4, 5)
    assert stream.chunks == 5, "the stream goes on"
    hub.stop()


def test_an_older_worker_does_not_overwrite_a_stream_that_has_moved(tmp_path):
    hubs = [fake_hub(snapshots=Snapshots(tmp_path / "s", like=FakeExecutor().like, fingerprint="f")) for _ in range(2)]
    for hub in hubs:
        hub.start()
    stream = hubs[0].open()
    show_all(stream, 0, 2)
    hubs[0].save(stream)
    moved, resumed = hubs[1].connect(stream.id)
    assert resumed["position"] == 2.0
    show_all(moved, 2, 5)
    assert hubs[1].save(moved) and not hubs[0].save(stream)
    assert hubs[0].snapshots.read(stream.id)["chunks"] == 5
    for hub in hubs:
        hub.stop()


def show_all(stream, first, last):
    """Shows seconds first to last - 1 of a stream that no protocol stands before, and waits for the captions."""
    for i in range(2 * first, 2 * last):
        stream.push(np.zeros((28, 28, 3), np.uint8), i / 2)
        while stream.chunks < (i + 1) // 2:
            time.sleep(0.005)


def test_a_stream_that_fails_takes_no_other_with_it(serve):
    client = serve()
    with client.websocket_connect("/v1/realtime") as bad, client.websocket_connect("/v1/realtime") as good:
        watch(good, 1)
        for seconds in (0.0, 0.5):
            send(bad, type="svlm.frame", time=seconds)
            bad.send_bytes(jpeg(FakeExecutor.poison))
        events = [json.loads(bad.receive_text()) for _ in range(5)]
        assert any(event["type"] == "error" and "cannot be read" in event["error"]["message"] for event in events)
        assert len(watch(good, 2, first=1)) == 2
    assert "svlm_failed_streams_total 1.0" in client.get("/metrics").text


def test_a_chunk_that_fails_leaves_the_others_of_its_tick_alone():
    hub = fake_hub()
    heard = {}
    for name, value in (("bad", FakeExecutor.poison), ("good", 90)):
        stream = hub.open()
        stream.subscribe(lambda event, name=name: heard.setdefault(name, []).append(event.kind))
        for seconds in (0.0, 0.5):
            stream.push(np.full((28, 28, 3), value, np.uint8), seconds)
    hub.scheduler._tick(hub.scheduler._due())
    assert hub.scheduler.executor.begun == [[0, 1]], "both are in one program"
    assert heard["good"][-1] == "caption" and heard["bad"] == ["error", "closed"]


def test_streams_that_come_and_go_leave_no_threads_and_no_files(tmp_path):
    hub = fake_hub(snapshots=Snapshots(tmp_path / "streams", like=FakeExecutor().like, fingerprint="f"))
    hub.start()
    picture, chance = np.zeros((28, 28, 3), np.uint8), np.random.default_rng(0)

    def visit(save):
        stream, _ = hub.connect(None)
        leave = stream.subscribe(lambda event: None)
        if save:
            show_all(stream, 0, 1)
        for i in range(2, int(chance.integers(2, 7))):
            stream.push(picture, i / 2)
        if chance.random() < 0.2 and stream.newest is not None:
            hub.ask(stream, "What is it?")
        leave()
        hub.disconnect(stream)
        hub.close(stream, reason="left", keep=save)

    for number in range(50):  # the first saves start threads of Orbax, which stay
        visit(save=number % 10 == 0)
    held = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for number in range(1000):
        visit(save=number % 100 == 0)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == held
    assert not hub.streams and hub.scheduler.executor.used == 0 and not hub.scheduler._streams
    hub.stop()


def test_a_client_that_returns_goes_on(serve, tmp_path):
    snapshots = Snapshots(tmp_path / "streams", like=FakeExecutor().like, fingerprint="f")
    client = serve(snapshots=snapshots)
    with client.websocket_connect("/v1/realtime") as socket:
        name = receive(socket, "session.created")["session"]["id"]
        watch(socket, 3)
    with client.websocket_connect(f"/v1/realtime?session_id={name}") as socket:
        resumed = receive(socket, "session.created")["session"]["svlm"]["resumed"]
        assert resumed == {"position": 3.0, "lost_seconds": 0.0}
        assert watch(socket, 1, first=9)[0]["output"][0]["content"][0]["text"] == "caption 4"
    client.__exit__(None, None, None)  # drains: every stream is saved
    again = serve(snapshots=Snapshots(tmp_path / "streams", like=FakeExecutor().like, fingerprint="f"))
    with again.websocket_connect("/v1/realtime", headers={"x-session-id": name}) as socket:
        session = receive(socket, "session.created")["session"]
        assert session["svlm"]["resumed"]["position"] == 4.0 and 0 <= session["svlm"]["resumed"]["lost_seconds"] < 60
        assert watch(socket, 1)[0]["output"][0]["content"][0]["text"] == "caption 5"
    assert name not in "".join(path.read_text() for path in (tmp_path / "streams").rglob("stream.json"))


def test_clients_may_name_their_streams_where_a_proxy_routes_by_name(serve):
    client, name = serve(names_from_clients=True), "camera-7-0123456789abcdef0123"
    with client.websocket_connect("/v1/realtime", headers={"x-session-id": name}) as socket:
        session = receive(socket, "session.created")["session"]
        assert session["id"] == name and session["svlm"]["resumed"] is None
    with client.websocket_connect("/v1/realtime", headers={"x-session-id": "guess"}) as socket:
        assert json.loads(socket.receive_text())["error"]["code"] == "not_found"


def test_an_unknown_session_is_not_found(serve):
    with serve().websocket_connect("/v1/realtime?session_id=sess_nobody") as socket:
        assert json.loads(socket.receive_text())["error"]["code"] == "not_found"


def test_streams_over_http(serve):
    client = serve()
    made = client.post("/v1/streams", json={"source": "synthetic:match?seed=3&minutes=0.05", "svlm": {"late": "merge"}})
    assert made.status_code == 201 and made.json()["svlm"]["late"] == "merge"
    name = made.json()["id"]
    with client.stream("GET", f"/v1/streams/{name}/captions") as response:
        lines = response.iter_lines()
        assert any(line == "event: caption" for line in lines)
    assert [stream["id"] for stream in client.get("/v1/streams").json()["data"]] == [name]
    answer = client.post(f"/v1/streams/{name}/questions", json={"question": "Who has the ball?"}).json()
    assert answer["text"].startswith("answer") and answer["status"] == "completed"
    assert client.get(f"/v1/streams/{name}/thumbnail", params={"second": 0}).content[:2] == b"\xff\xd8"
    assert client.post(f"/v1/streams/{name}", json={"instructions": "Shout."}).json()["instructions"] == "Shout."
    assert client.get(f"/v1/streams/{name}/captions?format=vtt").text.startswith(
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\ncaption 1"
    )
    assert client.get(f"/v1/streams/{name}/captions?format=srt").text.startswith("1\n00:00:00,000")
    assert json.loads(client.get(f"/v1/streams/{name}/captions?format=jsonl").text.splitlines()[0])["text"] == "caption 1"
    assert client.delete(f"/v1/streams/{name}").json()["deleted"] is True
    assert client.get(f"/v1/streams/{name}").status_code == 404


def test_metrics_have_no_words_of_clients(serve):
    client = serve()
    with client.websocket_connect("/v1/realtime") as socket:
        name = receive(socket, "session.created")["session"]["id"]
        watch(socket, 2)
        time.sleep(1.2)  # gauges are written once a second
        text = client.get("/metrics").text
    for line in (
        "svlm_captions_total 2.0",
        "svlm_num_requests_running 1.0",
        "svlm_deadline_misses_total 0.0",
        'svlm_cache_tokens{kind="vision"} 10.0',
    ):
        assert line in text
    assert name not in text and "caption 1" not in text


def test_nothing_without_the_key(serve):
    client = serve(access=Access(api_key=KEY))
    for path in ("/v1/models", "/v1/streams", "/metrics"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == client.get("/").status_code == 200
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/realtime") as socket:
        socket.receive_text()
    names = ["realtime", f"openai-insecure-api-key.{KEY}"]
    with client.websocket_connect("/v1/realtime", subprotocols=names) as socket:
        assert socket.accepted_subprotocol == "realtime" and receive(socket, "session.created")


def test_pages_of_other_sites_are_refused(serve):
    client = serve()
    assert client.get("/v1/models", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.get("/v1/models", headers={"Origin": HOST}).status_code == 200
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/v1/realtime", headers={"Origin": "https://evil.example"}) as socket,
    ):
        socket.receive_text()


def test_the_page_loads_nothing_from_elsewhere(serve):
    client = serve()
    page = client.get("/")
    assert (
        "default-src 'none'" in page.headers["content-security-policy"] and page.headers["x-content-type-options"] == "nosniff"
    )
    assert "http://" not in page.text and "https://" not in page.text.replace(
        'placeholder="rtsp://camera/stream, https://…', ""
    )
    for name in ("main.js", "panel.js", "server.js", "capture.js", "cache.js", "style.css", "icon.svg"):
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200 and "cdn" not in answer.text
    assert client.get("/page/../app.py").status_code == 404


def test_too_many_requests_and_too_many_pictures(serve):
    client = serve(limits=Limits(requests_per_minute=5, frames_per_second=2))
    assert [client.get("/v1/models").status_code for _ in range(7)][-1] == 429
    client = serve(limits=Limits(frames_per_second=2))
    with client.websocket_connect("/v1/realtime") as socket:
        for _ in range(8):
            socket.send_bytes(jpeg())
        codes = [
            event["error"]["code"]
            for event in (json.loads(socket.receive_text()) for _ in range(9))
            if event["type"] == "error"
        ]
        assert set(codes) == {"too_many_frames"}
