"""`/v1/chat/completions`: questions about pictures and videos in one request, as OpenAI's clients send them.

The content parts `image_url` and `video_url` are read into a memory of their own (`streaming.qa_session`), and the text is
asked behind them. The work is done in pieces between the ticks of the live streams, so that few captions wait for it.
"""

import asyncio
import base64
import binascii
import json
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from svlm_jax.errors import RequestError, SvlmError
from svlm_jax.prompt.qa import Answer
from svlm_jax.serving.hub import Hub
from svlm_jax.serving.images import decode_data_url
from svlm_jax.serving.replies import SLICE
from svlm_jax.streaming.qa_session import QASession

LONGEST_VIDEO = 3_600.0  # s of a video in one request


class Url(BaseModel):
    url: str


class Part(BaseModel):
    model_config = ConfigDict(extra="ignore")
    type: Literal["text", "image_url", "video_url"]
    text: str | None = None
    image_url: Url | None = None
    video_url: Url | None = None


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


class ChatRequest(BaseModel):
    model_config = ConfigDict(extra="ignore")
    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool = False
    max_tokens: Annotated[int | None, Field(gt=0)] = None
    max_completion_tokens: Annotated[int | None, Field(gt=0)] = None


def router(hub: Hub) -> APIRouter:
    """The route over a hub."""
    api = APIRouter()

    @api.post("/v1/chat/completions")
    async def complete(request: ChatRequest) -> Response:
        if request.model not in (hub.model, "default"):
            sentence = f"the model {request.model[:80]!r} is not served: expected {hub.model}"
            raise RequestError("model_not_found", sentence, status=404, param="model")
        question = Conversation(request, hub)
        if request.stream:
            return StreamingResponse(question.events(), media_type="text/event-stream")
        answer = await question.answer()
        message = {"role": "assistant", "content": answer.text}
        return JSONResponse(question.body("chat.completion", message=message, finish="stop", answer=answer))

    return api


class Conversation:
    """One request: what it shows, what it asks, and its answer."""

    def __init__(self, request: ChatRequest, hub: Hub) -> None:
        self.hub, self.id, self.created, self.model = hub, f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), hub.model
        self.system, self.history, self.question, self.shown = read_messages(request.messages)
        hub.limits.text("system", self.system or "")
        hub.limits.text("question", self.question, hub.limits.question_chars)
        self.cap = hub.scheduler.answer_cap(request.max_completion_tokens or request.max_tokens)

    async def answer(self, tell: Callable[[str], None] = lambda words: None) -> Answer:
        """The whole answer. tell: is given the words so far, again and again, on this thread."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Answer] = loop.create_future()

        def settle(answer: Answer | None, error: Exception | None) -> None:
            def now() -> None:
                if done.done():
                    return
                if error is not None:
                    done.set_exception(error)
                elif answer is not None:
                    done.set_result(answer)

            loop.call_soon_threadsafe(now)

        def post(words: str) -> None:
            loop.call_soon_threadsafe(tell, words)

        self.hub.scheduler.submit(lambda vlm: self._work(vlm, post), settle)
        return await done

    async def events(self) -> AsyncIterator[str]:
        """The answer as server-sent events in the shape of OpenAI's chunks."""
        yield self._event(self.body("chat.completion.chunk", delta={"role": "assistant", "content": ""}))
        words: asyncio.Queue[str | None] = asyncio.Queue()
        answering = asyncio.create_task(self.answer(words.put_nowait))
        answering.add_done_callback(lambda _: words.put_nowait(None))
        said = ""
        try:
            while (so_far := await words.get()) is not None:
                if len(so_far) > len(said):
                    yield self._event(self.body("chat.completion.chunk", delta={"content": so_far[len(said) :]}))
                    said = so_far
            answer = await answering
        except SvlmError as error:
            code = error.code if isinstance(error, RequestError) else "failed"
            told = {"message": str(error), "type": "invalid_request_error", "code": code, "param": None}
            yield self._event({"error": told})
            return
        if rest := answer.text[len(said) :]:
            yield self._event(self.body("chat.completion.chunk", delta={"content": rest}))
        yield self._event(self.body("chat.completion.chunk", delta={}, finish="stop", answer=answer))
        yield "data: [DONE]\n\n"

    @staticmethod
    def _event(body: dict[str, Any]) -> str:
        return f"data: {json.dumps(body)}\n\n"

    def body(self, kind: str, *, finish: str | None = None, answer: Answer | None = None, **content: Any) -> dict[str, Any]:
        choice = {"index": 0, **content, "finish_reason": finish}
        body = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": [choice]}
        if answer is not None:
            body["usage"] = {"prompt_tokens": 0, "completion_tokens": len(answer.tokens), "total_tokens": len(answer.tokens)}
            body["svlm"] = {"seconds": list(answer.seconds)}
        return body

    def _work(self, vlm: Any, tell: Callable[[str], None]) -> Iterator[Answer | None]:
        """Yields None between two pieces of work, and the answer last. Runs on the scheduler's thread."""
        session: QASession = vlm.qa_session(max_new_tokens=self.cap, **({} if self.system is None else {"system": self.system}))
        for part in self.shown:
            yield from self._show(session, part)
        follows = None
        for asked, said in self.history:
            follows = past(asked, said, () if follows is None else follows.history)
        for told in session.answer(self.question, follows=follows, slice_tokens=SLICE):
            if isinstance(told, str):
                tell(told)
                yield None
            else:
                yield told

    def _show(self, session: QASession, part: Part) -> Iterator[None]:
        if part.image_url is not None:
            picture = decode_data_url(part.image_url.url, self.hub.limits)
            frames = iter(
                [(session.position + i / session.settings.fps, picture) for i in range(session.dialogue.frames_a_grid)]
            )
            with session.open(frames) as source:
                for _ in session.watch(source):
                    yield None
            return
        assert part.video_url is not None
        url = part.video_url.url
        with tempfile.NamedTemporaryFile(suffix=".video") as file:
            if url.startswith("data:"):
                file.write(decode_video_url(url, self.hub.limits.message_bytes))
                file.flush()
                address = file.name
            else:
                address = self.hub.access.source(url)
            with session.open(address, duration=LONGEST_VIDEO) as source:
                for _ in session.watch(source):
                    yield None


def read_messages(messages: list[Message]) -> tuple[str | None, list[tuple[str, str]], str, list[Part]]:
    """The system prompt, the (question, answer) pairs before, the newest question, and the pictures and videos in order."""
    system, shown, turns = None, [], []
    for message in messages:
        parts = [Part(type="text", text=message.content)] if isinstance(message.content, str) else message.content
        text = "\n".join(part.text for part in parts if part.type == "text" and part.text)
        for part in parts:
            if part.type != "text":
                if getattr(part, part.type) is None:
                    raise RequestError("bad_value", f"a part of type {part.type} has no {part.type}", param="messages")
                shown.append(part)
        if message.role in ("system", "developer"):
            system = text
        else:
            turns.append((message.role, text))
    if not turns or turns[-1][0] != "user" or not turns[-1][1].strip():
        raise RequestError(
            "no_question", "the last message asks nothing: expected one of role user with text", param="messages"
        )
    if not shown:
        raise RequestError("no_video", "the messages show nothing: expected an image_url or a video_url", param="messages")
    if [role for role, _ in turns[:-1]] != ["user", "assistant"] * (len(turns) // 2):
        raise RequestError("bad_order", "the messages do not alternate: expected user, assistant, …, user", param="messages")
    history = [(turns[i][1], turns[i + 1][1]) for i in range(0, len(turns) - 1, 2)]
    return system, history, turns[-1][1], shown


def past(asked: str, said: str, before: tuple[tuple[str, str], ...]) -> Answer:
    """A question that was answered in an earlier request, for the new one to follow."""
    return Answer(asked, said, (), 0.0, (), None, None, (*before, (asked, said)), 0.0, 0.0, 0.0)


def decode_video_url(url: str, most: int) -> bytes:
    """The bytes of a data:video/...;base64, address."""
    head, comma, body = url.partition(",")
    if not comma or not head.startswith("data:video/") or not head.endswith(";base64"):
        raise RequestError("bad_value", "video_url: expected an address or data:video/mp4;base64,...", param="video_url")
    if len(body) > most:
        raise RequestError(
            "too_long", f"video_url holds {len(body):,} characters: expected at most {most:,}", param="video_url"
        )
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise RequestError("bad_value", "video_url: the part behind the comma is not base64", param="video_url") from None
