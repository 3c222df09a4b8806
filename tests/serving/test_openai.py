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
from tests.serving.fakes import fake_hub

openai = pytest.importorskip("openai", reason="needs OpenAI's client: pip install -e .[dev]")
uvicorn = pytest.importorskip("uvicorn")

KEY = "a-key-nobody-guesses"


@pytest.fixture
def client():
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(fake_hub(access=Access(api_key=KEY))), log_level="error"))
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
