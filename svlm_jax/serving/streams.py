"""`/v1/streams`: streams whose sources the server opens itself, over plain HTTP; captions as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict

from svlm_jax.errors import RequestError
from svlm_jax.output.jsonl import JSON_LINES
from svlm_jax.output.records import Format
from svlm_jax.output.subtitles import SUBRIP, WEBVTT
from svlm_jax.serving.hub import Hub
from svlm_jax.serving.options import changed, described
from svlm_jax.serving.stream import Event, LiveStream
from svlm_jax.streaming.caption import Caption, Timing

FORMATS: Mapping[str, tuple[Format, str]] = {
    "vtt": (WEBVTT, "text/vtt"),
    "srt": (SUBRIP, "application/x-subrip"),
    "jsonl": (JSON_LINES, "application/x-ndjson"),
}
NO_TIMING = Timing(0.0, 0.0)
UNREAD = 1_000  # events that a reader may be behind before it is cut off
KEEP_ALIVE = 15.0  # s between two comments, so that proxies do not close an idle connection


class StreamRequest(BaseModel):
    """A stream to be opened, or changes of one."""

    model_config = ConfigDict(extra="forbid")
    source: str | None = None
    instructions: str | None = None
    svlm: dict[str, Any] | None = None


class QuestionRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    question: str
    max_output_tokens: int | None = None


def router(hub: Hub) -> APIRouter:
    """The routes over a hub."""
    api = APIRouter(prefix="/v1/streams")

    def shown(stream: LiveStream) -> dict[str, Any]:
        return {**stream.summary(), "instructions": stream.options.system, "svlm": described(stream.options)}

    @api.post("", status_code=201)
    def create(request: StreamRequest) -> dict[str, Any]:
        options = changed(hub.scheduler.defaults, request.instructions, request.svlm, hub.limits)
        if request.source is not None:
            hub.access.source(request.source)  # refused before a lane is taken
        stream = hub.open(options)
        if request.source is not None:
            try:
                hub.attach(stream, request.source)
            except RequestError:
                hub.close(stream)
                raise
        return shown(stream)

    @api.get("")
    def listed() -> dict[str, Any]:
        return {"object": "list", "data": [shown(stream) for stream in list(hub.streams.values())]}

    @api.get("/{name}")
    def one(name: str) -> dict[str, Any]:
        return shown(hub.get(name))

    @api.post("/{name}")
    def change(name: str, request: StreamRequest) -> dict[str, Any]:
        stream = hub.get(name)
        hub.change(stream, changed(stream.options, request.instructions, request.svlm, hub.limits))
        if request.svlm and "paused" in request.svlm:
            stream.paused = bool(request.svlm["paused"])
        if request.source is not None:
            hub.attach(stream, request.source)
        return shown(stream)

    @api.delete("/{name}")
    def delete(name: str) -> dict[str, Any]:
        hub.close(hub.get(name), reason="deleted")
        return {"id": name, "object": "svlm.stream", "deleted": True}

    @api.get("/{name}/captions")
    def captions(name: str, format: Literal["events", "json", "vtt", "srt", "jsonl"] = "events") -> Response:
        stream = hub.get(name)
        if format == "events":
            return StreamingResponse(events(stream), media_type="text/event-stream")
        return written(list(stream.captions), format)

    @api.get("/{name}/thumbnail")
    def thumbnail(name: str, second: float) -> Response:
        jpeg = hub.get(name).thumbnail(second)
        if jpeg is None:
            raise RequestError("not_found", f"there is no picture of {second:g} s any more", status=404, param="second")
        return Response(jpeg, media_type="image/jpeg")

    @api.post("/{name}/questions")
    async def ask(name: str, request: QuestionRequest) -> dict[str, Any]:
        stream = hub.get(name)
        loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        wanted: list[str] = []

        def settle(event: Event) -> None:
            if not done.done():
                done.set_result(event)

        def listen(event: Event) -> None:
            if (event.kind == "answer" and event.data["id"] in wanted) or event.kind == "closed":
                loop.call_soon_threadsafe(settle, event)

        leave = stream.subscribe(listen)
        try:
            question = hub.ask(stream, request.question, request.max_output_tokens)
            wanted.append(question.id)
            event = await done
        finally:
            leave()
        if event.kind == "closed":
            raise RequestError("closed", "the stream was closed before the answer came", status=410)
        return dict(event.data)

    return api


async def events(stream: LiveStream) -> AsyncIterator[str]:
    """Events of a stream as server-sent events, until it closes or the reader goes."""
    loop = asyncio.get_running_loop()
    unread: asyncio.Queue[Event] = asyncio.Queue()

    def post(event: Event) -> None:
        if unread.qsize() < UNREAD or event.kind == "closed":
            unread.put_nowait(event)

    def hear(event: Event) -> None:
        loop.call_soon_threadsafe(post, event)

    leave = stream.subscribe(hear)
    try:
        while unread.qsize() < UNREAD:
            try:
                event = await asyncio.wait_for(unread.get(), KEEP_ALIVE)
            except TimeoutError:
                yield ": \n\n"
                continue
            yield f"event: {event.kind}\ndata: {json.dumps(dict(event.data), allow_nan=False)}\n\n"
            if event.kind == "closed":
                return
    finally:
        leave()


def written(captions: Sequence[Mapping[str, Any]], format: str) -> Response:
    """Captions as a file: the same bytes that `svlm watch` writes."""
    if format == "json":
        return JSONResponse([dict(caption) for caption in captions])
    form, kind = FORMATS[format]
    text, number = form.header, 0
    for data in captions:
        caption = Caption(data["start"], data["end"], data["text"], (), NO_TIMING, data["usage"], data["lag"])
        record = form.record(caption, number + 1)
        number += bool(record)
        text += record
    return Response(text, media_type=kind, headers={"Content-Disposition": f'attachment; filename="captions.{format}"'})
