"""OpenAI's own client, over a real socket: its Realtime and its models calls, and its errors."""

import base64
import io
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

from svlm_jax.serving.access import Access
from svlm_jax.serving.app import create_app
from tests import clips
from tests.serving.fakes import fake_hub
from tests.streaming.streams import model

openai = pytest.importorskip("openai", reason="needs OpenAI's client: pip install -e .[dev]")
uvicorn = pytest.importorskip("uvicorn")

KEY = "a-key-nobody-guesses"


@pytest.fixture
def hub():
    return fake_hub(access=Access(api_key=KEY))


@pytest.fixture
def client(hub):
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(hub), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    made = openai.OpenAI(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1", api_key=KEY, max_retries=0)
    yield made
    made.close()
    server.should_exit = True
    thread.join()
    listener.close()


def shown():
    out = io.BytesIO()
    Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save(out, "JPEG")
    url = f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
    return {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": url}]}


def test_models_and_errors(client):
    assert [model.id for model in client.models.list()] == ["fake"]
    with pytest.raises(openai.NotFoundError, match="is not served: expected fake"):
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "?"}])
    with pytest.raises(openai.BadRequestError, match="expected an image_url or a video_url"):
        client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "What is it?"}])
    with pytest.raises(openai.AuthenticationError, match="expected an API key"):
        client.with_options(api_key="another-key").models.list()


# OpenAI's client calls websockets in a way that websockets 17.1 has deprecated.
@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
def test_a_stream_through_the_realtime_client(client):
    with client.realtime.connect(model="fake") as link:
        assert link.recv().session.instructions == "You see."
        link.session.update(session={"type": "realtime", "instructions": "Be brief."})
        assert link.recv().type == "session.updated"
        link.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What?"}]}
        )
        for _ in range(2):
            link.conversation.item.create(item=shown())
            time.sleep(0.55)
        link.response.create()
        link.conversation.item.create(item=shown())
        time.sleep(0.55)
        link.conversation.item.create(item=shown())
        texts = []
        for event in link:
            assert event.type != "error", event
            if event.type == "response.output_text.done":
                texts.append(event.text)
            if len(texts) == 3:
                break
        assert "caption 1" in texts and any(text.startswith("answer") for text in texts)


def data_url(kind, data):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.slow
def test_chat_about_a_picture_and_a_video(client, hub, tmp_path):
    """With a model behind it: a picture, a video, words as they are decoded, and a question that follows another."""
    hub.scheduler.executor.vlm = model()
    out = io.BytesIO()
    Image.fromarray(clips.picture(5)).save(out, "PNG")
    video = clips.render(tmp_path / "video.mp4", frames=8, rate=4)
    shown = {
        "image": {"type": "image_url", "image_url": {"url": data_url("image/png", out.getvalue())}},
        "video": {"type": "video_url", "video_url": {"url": data_url("video/mp4", video.read_bytes())}},
    }
    for part in shown.values():
        asked = [{"role": "user", "content": [part, {"type": "text", "text": "What is it?"}]}]
        whole = client.chat.completions.create(model="fake", messages=asked, max_tokens=12)
        text = whole.choices[0].message.content
        assert whole.choices[0].finish_reason == "stop" and 1 <= whole.usage.completion_tokens <= 12
        chunks = list(client.chat.completions.create(model="fake", messages=asked, max_tokens=12, stream=True))
        words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
        assert "".join(words) == text and chunks[-1].choices[0].finish_reason == "stop"
        if whole.usage.completion_tokens > 5:
            assert len(words) > 1, "words come in slices"
        more = [*asked, {"role": "assistant", "content": text}, {"role": "user", "content": "And then?"}]
        assert client.chat.completions.create(model="fake", messages=more, max_tokens=4).choices[0].message.content is not None
    with pytest.raises(openai.BadRequestError, match="not base64"):
        bad = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,!!"}}
        asked = [{"role": "user", "content": [bad, {"type": "text", "text": "?"}]}]
        client.chat.completions.create(model="fake", messages=asked)
