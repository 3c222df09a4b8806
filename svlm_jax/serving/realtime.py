"""`/v1/realtime`: one WebSocket, one stream, in the event names of OpenAI's Realtime API.

    client   session.update · conversation.item.create (input_image, input_text) · response.create · response.cancel
             svlm.frame {"time": s}, then one binary message: JPEG, PNG or WebP (without svlm.frame: stamped on arrival)
             svlm.source {"source": "rtsp://..."}: the server opens it and feeds the stream itself
    server   session.created · session.updated · conversation.item.created · response.created · response.output_text.delta ·
             response.output_text.done · response.done · svlm.frame_ack · error

A caption is a response that nobody asked for; it and every answer carry our additions under the one key "svlm": the kind, the
seconds, the lag. Silence is a response with the empty text.
"""

import asyncio
import contextlib
import itertools
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from svlm_jax.errors import RequestError, SvlmError
from svlm_jax.serving.access import REALTIME
from svlm_jax.serving.hub import Hub
from svlm_jax.serving.images import decode_data_url, decode_image
from svlm_jax.serving.options import changed, described
from svlm_jax.serving.stream import Event, LiveStream, Question

SLOW = 2_000  # events that a client may leave unread before it is cut off
GARBAGE = 20  # faulty messages in a row before it is cut off


class RealtimeConnection:
    """One client's connection; ends with it. The stream stays for `grace` seconds, for a client that comes back."""

    def __init__(self, socket: WebSocket, hub: Hub) -> None:
        self.socket, self.hub = socket, hub
        self.stream: LiveStream | None = None
        self._out: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue(SLOW)
        self._events = itertools.count(1)
        self._stamp: float | None = None  # of the next binary message
        self._waiting_text: list[str] = []  # input_text items that no response.create has taken yet
        self._asked: dict[str, Question] = {}

    async def run(self, session_id: str | None) -> None:
        """Serves the connection until it closes."""
        names = [name.strip() for name in self.socket.headers.get("sec-websocket-protocol", "").split(",")]
        await self.socket.accept(subprotocol=REALTIME if REALTIME in names else None)
        loop = asyncio.get_running_loop()
        try:
            stream, resumed = await asyncio.to_thread(self.hub.connect, session_id)
        except SvlmError as error:
            await self.socket.send_text(json.dumps(self._error(error)))
            await self.socket.close(1013, "refused")
            return
        self.stream = stream

        def hear(event: Event) -> None:
            loop.call_soon_threadsafe(self._post, event)

        leave = stream.subscribe(hear)
        sender = asyncio.create_task(self._send())
        try:
            self._put({"type": "session.created", "session": self._session(resumed)})
            await self._receive()
        except WebSocketDisconnect:
            pass
        finally:
            leave()
            self.hub.disconnect(stream)
            with contextlib.suppress(asyncio.QueueFull):
                self._out.put_nowait(None)
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sender

    # ------------------------------------------------------------------------------------------- from the client

    async def _receive(self) -> None:
        garbage = 0
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                if message.get("bytes") is not None:
                    await self._picture(message["bytes"])
                else:
                    await self._event(message.get("text") or "")
                garbage = 0
            except SvlmError as error:
                garbage += 1
                self._put(self._error(error))
            if garbage >= GARBAGE:
                await self.socket.close(1008, "too many faulty messages")
                return

    async def _picture(self, data: bytes, stamp: float | None = None) -> None:
        assert self.stream is not None
        stamp, self._stamp = stamp if stamp is not None else self._stamp, None
        moment = time.monotonic() if stamp is None else stamp
        picture = await asyncio.to_thread(decode_image, data, self.hub.limits)
        ack = self.stream.push(picture, moment)
        self._put({"type": "svlm.frame_ack", "svlm": {"pending": ack.pending, "dropped": ack.dropped, "time": stamp}})

    async def _event(self, text: str) -> None:
        most = self.hub.limits.message_bytes
        if len(text) > most:
            raise RequestError("too_long", f"a message of {len(text):,} characters: expected at most {most:,}")
        try:
            event = json.loads(text)
        except (ValueError, RecursionError):
            raise RequestError("bad_json", "the message is no JSON: expected an event with a type") from None
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise RequestError("bad_event", 'the message has no type: expected an event such as {"type": "session.update"}')
        handlers = {
            "session.update": self._update,
            "conversation.item.create": self._item,
            "response.create": self._respond,
            "response.cancel": self._cancel,
            "svlm.frame": self._frame,
            "svlm.source": self._source,
        }
        if event["type"] not in handlers:
            sentence = f"events of type {event['type'][:60]!r} are not known: expected {', '.join(handlers)}"
            raise RequestError("unknown_event", sentence)
        await handlers[event["type"]](event)

    async def _update(self, event: Mapping[str, Any]) -> None:
        assert self.stream is not None
        session = event.get("session")
        if not isinstance(session, Mapping):
            raise RequestError("bad_value", "session.update has no session: expected an object", param="session")
        asked = session.get("svlm")
        options = changed(self.stream.options, session.get("instructions"), asked, self.hub.limits)
        await asyncio.to_thread(self.hub.change, self.stream, options)
        if isinstance(asked, Mapping) and "paused" in asked:
            if not isinstance(asked["paused"], bool):
                raise RequestError("bad_value", "svlm.paused: expected true or false", param="svlm.paused")
            self.stream.paused = asked["paused"]
        self._put({"type": "session.updated", "session": self._session()})

    async def _item(self, event: Mapping[str, Any]) -> None:
        item = event.get("item")
        content = item.get("content") if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or not isinstance(content, list):
            raise RequestError("bad_value", "conversation.item.create has no content: expected a list of parts", param="item")
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind == "input_text" and isinstance(part.get("text"), str):
                self._waiting_text.append(self.hub.limits.text("text", part["text"], self.hub.limits.question_chars))
                del self._waiting_text[: -self.hub.limits.questions]
            elif kind == "input_image" and isinstance(part.get("image_url"), str):
                assert self.stream is not None
                picture = await asyncio.to_thread(decode_data_url, part["image_url"], self.hub.limits)
                self.stream.push(picture, time.monotonic())
            else:
                sentence = f"a part of type {str(kind)[:60]!r}: expected input_text or input_image"
                raise RequestError("bad_value", sentence, param="item.content")
        made = {"id": item.get("id") or f"item_{secrets.token_hex(8)}", "object": "realtime.item", "type": "message"}
        self._put({"type": "conversation.item.created", "item": {**made, "role": "user", "status": "completed", "content": []}})

    async def _respond(self, event: Mapping[str, Any]) -> None:
        assert self.stream is not None
        response = event.get("response") or {}
        text = response.get("instructions") if isinstance(response, Mapping) else None
        if isinstance(text, str):
            self._waiting_text.append(text)
        if not self._waiting_text:
            sentence = "response.create without a question: expected a conversation item with input_text before it"
            raise RequestError("no_question", sentence)
        asked, self._waiting_text = "\n".join(self._waiting_text), []
        wanted = response.get("max_output_tokens") if isinstance(response, Mapping) else None
        cap = wanted if isinstance(wanted, int) and not isinstance(wanted, bool) else None
        question = self.hub.ask(self.stream, asked, cap)
        self._asked[question.id] = question

    async def _cancel(self, event: Mapping[str, Any]) -> None:
        wanted = event.get("response_id")
        for question in list(self._asked.values()):
            if wanted in (None, question.id):
                question.cancelled = True

    async def _frame(self, event: Mapping[str, Any]) -> None:
        stamp = event.get("time")
        if not isinstance(stamp, int | float) or isinstance(stamp, bool):
            raise RequestError("bad_time", "svlm.frame has no time: expected seconds", param="time")
        self._stamp = float(stamp)

    async def _source(self, event: Mapping[str, Any]) -> None:
        assert self.stream is not None
        source = event.get("source")
        if not isinstance(source, str):
            raise RequestError("bad_value", "svlm.source has no source: expected an address", param="source")
        await asyncio.to_thread(self.hub.attach, self.stream, source)

    # ------------------------------------------------------------------------------------------- to the client

    async def _send(self) -> None:
        while (event := await self._out.get()) is not None:
            await self.socket.send_text(json.dumps(event, allow_nan=False))

    def _put(self, event: Mapping[str, Any]) -> None:
        try:
            self._out.put_nowait({"event_id": f"event_{next(self._events)}", **event})
        except asyncio.QueueFull:  # a client that reads nothing must not fill the host's memory
            asyncio.get_running_loop().create_task(self._cut_off())

    async def _cut_off(self) -> None:
        with contextlib.suppress(RuntimeError):
            await self.socket.close(1008, "the client reads too slowly")

    def _post(self, event: Event) -> None:
        for message in messages(event):
            self._put(message)
        if event.kind == "answer":
            self._asked.pop(event.data["id"], None)

    def _session(self, resumed: Mapping[str, Any] | None = None) -> dict[str, Any]:
        assert self.stream is not None
        return {
            "id": self.stream.id,
            "object": "realtime.session",
            "type": "realtime",
            "model": self.hub.model,
            "output_modalities": ["text"],
            "instructions": self.stream.options.system,
            "svlm": {
                **described(self.stream.options),
                **self.hub.about(),
                "paused": self.stream.paused,
                "position": self.stream.position,
                "resumed": resumed,
            },
        }

    def _error(self, error: SvlmError) -> dict[str, Any]:
        code, param = ("failed", None) if not isinstance(error, RequestError) else (error.code, error.param)
        return {
            "type": "error",
            "event_id": f"event_{next(self._events)}",
            "error": {"type": "invalid_request_error", "code": code, "message": str(error), "param": param, "event_id": None},
        }


def messages(event: Event) -> list[dict[str, Any]]:
    """An event of a stream in the names of the Realtime API."""
    data = dict(event.data)
    if event.kind == "error":
        error = {"type": "server_error", "code": "stream_failed", "message": data["message"], "param": None, "event_id": None}
        return [{"type": "error", "error": error}]
    if event.kind in ("status", "closed"):
        return [{"type": f"svlm.{event.kind}", "svlm": data}]
    kind, _, part = event.kind.partition(".")
    identity = {"response_id": data["id"], "item_id": f"item_{data['id']}", "output_index": 0, "content_index": 0}
    about = {key: value for key, value in data.items() if key not in ("id", "text", "words")} | {"kind": kind}
    if part == "start":
        return [{"type": "response.created", "response": _response(data["id"], "in_progress", None, about)}]
    if part == "words":
        return [{"type": "response.output_text.delta", **identity, "delta": data["words"]}]
    return [
        {"type": "response.output_text.done", **identity, "text": data["text"], "svlm": about},
        {"type": "response.done", "response": _response(data["id"], about.get("status", "completed"), data["text"], about)},
    ]


def _response(name: str, status: str, text: str | None, about: Mapping[str, Any]) -> dict[str, Any]:
    message = {"id": f"item_{name}", "object": "realtime.item", "type": "message", "role": "assistant", "status": status}
    output = [] if text is None else [{**message, "content": [{"type": "output_text", "text": text}]}]
    return {
        "id": name,
        "object": "realtime.response",
        "status": status,
        "output": output,
        "output_modalities": ["text"],
        "svlm": dict(about),
    }
