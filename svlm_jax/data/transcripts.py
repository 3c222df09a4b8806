"""Transcripts of videos as timed sentences: WhisperX JSON, SubRip (.srt), WebVTT (.vtt); and folders of them as annotations.

Words keep their own times where the file has them; else a sentence's time is spread evenly over its words.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from svlm_jax.data.annotations import Annotation, write_annotations
from svlm_jax.data.sentences import Sentence
from svlm_jax.data.subtitles import EMPTY, read_subtitles
from svlm_jax.data.whisperx import read_whisperx
from svlm_jax.data.windows import Annealing, Overlapped, annealing, overlapped
from svlm_jax.errors import DataError, EndpointError, SvlmError
from svlm_jax.host.text_files import decode, read_bytes
from svlm_jax.video.source import open_source

logger = logging.getLogger(__name__)

VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".ts")
KINDS = (".json", ".srt", ".vtt")
LATIN = "cp1252"  # Latin-1 as Windows has it, which is what files that say so are in
CHUNKS = Overlapped()


def read_transcript(path: str | Path, *, encoding: str | None = None) -> list[Sentence]:
    """The sentences of a transcript in order of time. What was skipped or guessed is counted in a warning.

    Args:
      encoding: of subtitles that do not show it themselves. Without one, what is no UTF-8 or UTF-16 is read as Latin-1, and a
        warning says so.
    Raises:
      DataError: the file cannot be read, or is no transcript.
    """
    path = Path(path)
    if path.suffix.lower() not in KINDS:
        raise DataError(f"{path} is no transcript that is understood; expected {', '.join(KINDS)}.")
    data = read_bytes(path, DataError)
    if path.suffix.lower() == ".json":
        found, uneven = read_whisperx(decode(data, str(path), DataError, encoding=encoding)[0], str(path))
    else:
        text, name = decode(data, str(path), DataError, encoding=encoding, fallback=LATIN)
        if name == LATIN and encoding is None:
            logger.warning("%s is neither UTF-8 nor UTF-16: read as Latin-1; if it is not, say which encoding it has", path)
        found, uneven = read_subtitles(text)
        if not found and EMPTY not in uneven:
            raise DataError(f"{path} is no transcript of its kind: it has no cues with times.")
    if uneven:
        logger.warning("%s: %s", path, ", ".join(f"{what}: {count}" for what, count in uneven.items()))
    spoken = [sentence for sentence in found if sentence.words]
    return sorted(spoken, key=lambda sentence: (sentence.start, sentence.end))


# ------------------------------------------------------------------------------------------------ folders


def annotate_folder(
    folder: str | Path,
    output: str | Path,
    rule: Overlapped | Annealing = CHUNKS,
    *,
    curate: Callable[[str, list[Sentence]], list[Sentence]] | None = None,
    keep: Callable[[Annotation], bool] | None = None,
    encoding: str | None = None,
) -> int:
    """Cuts the videos of a folder that have a transcript beside them (same name) into samples; returns their number.

    Args:
      output: the file of annotations to write, which should end in `_with_seeks.jsonl`; videos are named relative to `folder`.
      curate: (title, sentences) -> the sentences that stay, e.g. `curate.Curator.clean`. keep: which samples stay.
      encoding: see `read_transcript`.
    Raises:
      DataError: the folder has no video with a transcript, or the output cannot be written. A video or transcript that cannot
        be read is logged and left out.
      EndpointError: `curate` got no answer.
    """
    folder = Path(folder)
    videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEOS)
    pairs = [(video, transcript) for video in videos if (transcript := _beside(video)) is not None]
    if not pairs:
        raise DataError(f"{folder} has {len(videos)} videos, none with a transcript ({', '.join(KINDS)}) of the same name.")

    def samples() -> Iterator[Annotation]:
        for video, transcript in pairs:
            try:
                found = list(_samples(folder, video, transcript, rule, curate, encoding))
            except EndpointError:
                raise  # the next videos would fare no better
            except SvlmError as error:
                logger.warning("%s is left out: %s", video, error)
                continue
            yield from (sample for sample in found if keep is None or keep(sample))

    return write_annotations(output, samples())


def _beside(video: Path) -> Path | None:
    return next((path for suffix in KINDS if (path := video.with_suffix(suffix)).is_file()), None)


def _samples(
    folder: Path,
    video: Path,
    transcript: Path,
    rule: Overlapped | Annealing,
    curate: Callable[[str, list[Sentence]], list[Sentence]] | None,
    encoding: str | None,
) -> Iterator[Annotation]:
    sentences = read_transcript(transcript, encoding=encoding)
    with open_source(video) as source:
        duration = source.info.end  # words are on the same timeline
    if curate is not None:
        sentences = curate(video.stem, sentences)
    words = [word for sentence in sentences for word in sentence.words]
    name = video.relative_to(folder).as_posix()
    if isinstance(rule, Annealing):
        return annealing(name, words, rule, duration=duration, title=video.stem)
    return overlapped(name, words, rule, duration=duration, title=video.stem)
