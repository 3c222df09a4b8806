"""The entry of the library: a model, and the streams that are opened on it.

vlm = StreamingVLM.from_pretrained("mit-han-lab/StreamingVLM")
for caption in vlm.watch("match.mp4"):
    print(caption.start, caption.text)
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

from svlm_jax.errors import ConfigError
from svlm_jax.streaming.caption import Caption
from svlm_jax.streaming.loaded import LoadedVLM
from svlm_jax.streaming.pool import LanePool
from svlm_jax.streaming.qa_session import QASession, QASettings
from svlm_jax.streaming.session import Session
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.video.source import Source


class StreamingVLM(LoadedVLM):
    """A loaded model. Streams are opened on it with `stream` or, in one line, `watch`; it holds no state of theirs."""

    def stream(self, settings: StreamSettings | None = None, *, pool: LanePool | None = None, **changes: Any) -> Session:
        """A new stream, by default as the checkpoint was trained (`defaults`). `changes` are fields of StreamSettings.

        pool: lanes of other streams, of which this one takes one; else it has a cache to itself.
        """
        return Session(self, dataclasses.replace(settings or self.defaults, **changes), pool)

    def qa_session(self, settings: QASettings | None = None, **changes: Any) -> QASession:
        """A new stream that is watched to be asked about. `changes` are fields of QASettings."""
        return QASession(self, dataclasses.replace(settings or QASettings(), **changes))

    def open(self, source: Any, **options: Any) -> Source:
        """Opens a source as this model sees it: `Session.open` of a stream with the checkpoint's own settings."""
        return self.stream().open(source, **options)

    def watch(self, source: Any, **changes: Any) -> Iterator[Caption]:
        """Captions of a source: a path, URL, webcam number, or an open `Source`. `changes` are fields of StreamSettings."""
        return self.stream(**changes).watch(source)

    def resume(self, folder: str | pathlib.Path, **changes: Any) -> Session:
        """The stream that `Session.save` left in a folder, as if it had never stopped.

        `changes` are fields of StreamSettings that say how a second is run, not what it computes: `split_timing`,
        `keep_logits` and `implementation`.
        """
        if unknown := set(changes) - {"split_timing", "keep_logits", "implementation"}:
            raise ConfigError(f"{', '.join(sorted(unknown))}: a saved stream goes on with the settings it was started with")
        return Session.load(self, folder, **changes)

    def resume_qa(self, folder: str | pathlib.Path, **changes: Any) -> QASession:
        """The stream that `QASession.save` left in a folder, as if it had never stopped. changes: `implementation` only."""
        if unknown := set(changes) - {"implementation"}:
            raise ConfigError(f"{', '.join(sorted(unknown))}: a saved stream goes on with the settings it was started with")
        return QASession.load(self, folder, **changes)
