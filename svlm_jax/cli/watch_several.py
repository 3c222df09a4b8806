"""`svlm watch A B C`: several sources side by side, on one model and in one program, with outputs of their own."""

import argparse
import contextlib
import dataclasses
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from svlm_jax.errors import ConfigError, SvlmError
from svlm_jax.host.redact import mask, redact
from svlm_jax.host.signals import Stoppable

if TYPE_CHECKING:
    from svlm_jax.cli.stream_spec import StreamSpec
    from svlm_jax.host.progress import Stages
    from svlm_jax.output import SinkGroup, Status, Terminal
    from svlm_jax.streaming.caption import Caption
    from svlm_jax.streaming.session_group import SessionGroup
    from svlm_jax.streaming.vlm import StreamingVLM
    from svlm_jax.video.chunk import Chunk
    from svlm_jax.video.rounds import Ended, Rounds
    from svlm_jax.video.source import Source

logger = logging.getLogger(__name__)

FAILED = 2  # exit code when a source has failed: that of everything that a user gave and that cannot work
ENDINGS = {"vtt": ".vtt", "srt": ".srt", "jsonl": ".jsonl", "video": ".mp4"}
LONGEST = 24  # characters of a name: captions stand beside it


def names_of(sources: Sequence[str]) -> list[str]:
    """A short name for each source, for lines and files: no two are alike, and none holds a password."""
    names: list[str] = []
    for source in sources:
        shown = mask(source)
        if source.isdecimal():
            name = f"camera-{source}"
        elif source == "-":
            name = "stdin"
        elif found := re.match(r"[a-z]{2,}:(//)?(\*\*\*@)?", shown):  # an address, or synthetic:match?seed=3
            name = shown[found.end() :]
        else:
            name = Path(source).stem
        name = re.sub(r"[^\w.=-]+", "-", name).strip("-.")[:LONGEST] or "source"
        numbers = [name, *(f"{name}-{i}" for i in range(2, len(sources) + 1))]
        names.append(next(one for one in numbers if one not in names))
    return names


def outputs(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, dict[str, Path]]:
    """The files of each source by kind: FOLDER/NAME.vtt and so on. Makes the folders; ConfigError where a file was named."""
    from svlm_jax.host.files import check_target, writing

    files: dict[str, dict[str, Path]] = {name: {} for name in names}
    for kind, ending in ENDINGS.items():
        asked = getattr(arguments, kind)
        if asked is None:
            continue
        folder = Path(asked)
        if not folder.is_dir() and (folder.exists() or folder.suffix):
            raise ConfigError(
                f"--{kind} {asked} with {len(names)} sources: expected a folder, in which each of them has a file of its own "
                f"(such as {folder.with_suffix('') / (names[0] + ending)})"
            )
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            files[name][kind] = check_target(folder / f"{name}{ending}")
    return files


def check(arguments: argparse.Namespace) -> None:
    """ConfigError for what is for one source only."""
    for option in ("ask", "memory", "save_state", "resume"):
        if getattr(arguments, option):
            raise ConfigError(
                f"--{option.replace('_', '-')} with {len(arguments.sources)} sources: expected one source; `svlm serve` "
                f"answers questions beside many streams, and saves them"
            )
    if arguments.sources.count("-") > 1:
        raise ConfigError("- is given twice: expected at most one source from standard input")


def follow(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    """Watches until all sources have ended, or a signal comes. Returns the exit code: 2 when a source has failed."""
    from svlm_jax.host.progress import Stages

    check(arguments)
    with Stages("starting") as stages, contextlib.ExitStack() as stack:
        from svlm_jax.cli.stream_spec import StreamSpec, warn_of_unknown_video
        from svlm_jax.host.compile_cache import keep_compiled
        from svlm_jax.host.files import check_distinct
        from svlm_jax.host.malloc import limit_arenas

        limit_arenas()
        keep_compiled(arguments.compile_cache)
        names = names_of(arguments.sources)
        specs = {name: StreamSpec.of(arguments, source, given) for name, source in zip(names, arguments.sources, strict=True)}
        files = outputs(arguments, names)
        written = [path for kinds in files.values() for path in kinds.values()]
        check_distinct(written, [*arguments.sources, arguments.model])
        sources = {}
        for name, where in zip(names, arguments.sources, strict=True):  # what cannot be opened is said before any is watched
            stages.enter(f"opening {mask(where)}")
            specs[name], sources[name] = specs[name].open()
            stack.enter_context(sources[name])
            warn_of_unknown_video(arguments.model, where)
        vlm = specs[names[0]].model.load(stages)
        return _watch(Several(specs, sources, files), vlm, stages, live=not arguments.no_live)


def _watch(several: "Several", vlm: "StreamingVLM", stages: "Stages", *, live: bool) -> int:
    from svlm_jax.host.progress import prose
    from svlm_jax.output import Board, Terminal
    from svlm_jax.streaming.session_group import SessionGroup
    from svlm_jax.video.rounds import Rounds

    interrupted = None
    stages.enter("waiting for video")
    first = several.first()
    if first:
        stages.enter("compiling")
        group = SessionGroup(vlm, {name: several.specs[name].settings for name in first}, first)
        if any(several.in_real_time(name) for name in first):
            group.rehearse()  # no second of a stream that cannot wait is lost
        stages.stop()
        with contextlib.ExitStack() as stack:
            rounds = Rounds({name: several.sources[name] for name in first})
            items = stack.enter_context(Stoppable(rounds))  # left last: signals must not tear what follows apart
            stack.enter_context(rounds)
            statuses = several.statuses()
            status = dataclasses.replace(statuses[next(iter(first))], source=f"{len(statuses)} sources")
            terminal = stack.enter_context(Terminal(status, board=Board(statuses), live=live))
            several.open_outputs(stack)
            several.follow(items, rounds, group, terminal)
        interrupted = items.interrupted
    console = prose(stderr=True)
    with contextlib.suppress(OSError):  # a summary that nobody can read is no reason to fail
        for line in several.summary():
            console.print(line, markup=False)
    if interrupted:
        raise interrupted
    return FAILED if several.failed else 0


class Several:
    """The sources of one command, their outputs, and what has become of each.

    Attributes:
      failed: what was wrong with each source that has failed.
    """

    def __init__(
        self,
        specs: Mapping[str, "StreamSpec"],
        sources: Mapping[str, "Source"],
        files: Mapping[str, Mapping[str, Path]],
    ) -> None:
        from svlm_jax.output import Tally

        self.specs, self.sources, self._files = specs, sources, files
        self._tallies = {name: Tally() for name in specs}
        self._sinks: dict[str, SinkGroup] = {}
        self.failed: dict[str, SvlmError] = {}

    def in_real_time(self, name: str) -> bool:
        return self.sources[name].info.live or self.specs[name].video.pace == "realtime"

    def statuses(self) -> dict[str, "Status"]:
        return {name: spec.status(self.sources[name], name) for name, spec in self.specs.items()}

    def first(self) -> dict[str, "Chunk"]:
        """The first chunk of each source that has one, without taking it."""
        found = {}
        for name, source in self.sources.items():
            try:
                chunk = source.peek()
            except SvlmError as error:
                self._fail(name, error)
            else:
                if chunk is not None:
                    found[name] = chunk
        return found

    def open_outputs(self, stack: contextlib.ExitStack) -> None:
        """Opens the files of every source; `stack` closes them, whatever happens."""
        from svlm_jax.output import open_sinks

        for name, source in self.sources.items():
            files = self._files[name]
            sinks = open_sinks(
                tally=self._tallies[name],
                vtt=files.get("vtt"),
                srt=files.get("srt"),
                jsonl=files.get("jsonl"),
                video=files.get("video"),
                original=source.info.name if source.info.kind == "file" else None,
            )
            self._sinks[name] = stack.enter_context(sinks)

    def follow(
        self, items: Iterable[Mapping[str, "Chunk | Ended"]], rounds: "Rounds", group: "SessionGroup", terminal: "Terminal"
    ) -> None:
        """Captions all that comes, until nothing does."""
        from svlm_jax.video.rounds import Ended

        for name in self.sources.keys() - group.sessions.keys():  # without any video
            self._end(name, terminal)
        for come in items:
            chunks = {}
            for name, item in come.items():
                if not isinstance(item, Ended):
                    chunks[name] = item
                    continue
                group.close(name)
                if item.error is not None:
                    self._fail(name, item.error)
                self._end(name, terminal)
            terminal.stage("captioning")
            for name, said in group.feed(chunks).items():
                if not self._write(name, said, chunks[name], terminal):
                    group.close(name)
                    rounds.leave(name)
                    self._end(name, terminal)
            terminal.stage("waiting for video")

    def _write(self, name: str, said: "Caption | SvlmError", chunk: "Chunk", terminal: "Terminal") -> bool:
        """Whether a caption could be made and written."""
        try:
            if isinstance(said, SvlmError):
                raise said
            self._sinks[name].write(said, chunk.frames)
        except SvlmError as error:
            self._fail(name, error)
            return False
        terminal.write(said, chunk.frames, name)
        return True

    def _fail(self, name: str, error: Exception) -> None:
        """One source is lost. What is no user's fault ends the command."""
        if not isinstance(error, SvlmError):
            raise error
        self.failed[name] = error
        logger.warning("%s failed: %s", name, error)

    def _end(self, name: str, terminal: "Terminal") -> None:
        """Completes the files of a source that has nothing more to say."""
        try:
            self._sinks[name].close()
        except SvlmError as error:
            self._fail(name, error)
        terminal.end(name, "failed" if name in self.failed else "ended")

    def summary(self) -> list[str]:
        """A sentence for each source, and how fast they were together."""
        from svlm_jax.output.tally import pace

        said = []
        for name, tally in self._tallies.items():
            fate = f" Failed: {redact(str(self.failed[name]))}" if name in self.failed else ""
            said.append(f"{name}: {tally.counted()}{fate}")
        seconds = sum(tally.seconds for tally in self._tallies.values())
        wall = max(tally.wall for tally in self._tallies.values())
        if wall > 0:
            said.append(f"After the first captions, {pace(seconds, wall, f' of {len(said)} sources')}")
        written = [str(path) for kinds in self._files.values() for path in kinds.values()]
        return [*said, f"Written: {', '.join(written)}."] if written else said
