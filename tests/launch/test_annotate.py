"""The command that makes training data of videos and transcripts."""

from pathlib import Path

import pytest

from launch import annotate
from svlm_jax.data.annotations import AnnotationFile
from svlm_jax.data.curate import Curator
from svlm_jax.errors import EndpointError
from tests import clips


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 36 s, three words in each, and one whose transcript is none."""
    folder = tmp_path_factory.mktemp("games")
    clips.render(folder / "game.mp4", frames=2 * 36, rate=2)
    cues = (f"{i}\n00:00:{i:02},000 --> 00:00:{i + 1:02},000\nred {i} goal" for i in range(36))
    (folder / "game.srt").write_text("\n\n".join(cues))
    clips.render(folder / "other.mp4", frames=4, rate=2)
    (folder / "other.vtt").write_text("nothing")
    return folder


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ([], [(0, 24), (12, 36)]),
        (["--seconds", "18", "--stride", "9"], [(0, 18), (9, 27), (18, 36)]),
        (["--annealing"], [(0, 36)]),
        (["--annealing", "--seconds", "20"], [(0, 20), (20, 36)]),
    ],
)
def test_a_folder_becomes_samples(
    games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], times: list[tuple[int, int]]
) -> None:
    path = tmp_path / "train_with_seeks.jsonl"
    assert annotate.main([str(games), str(path), *options]) == 0
    assert [(sample.start, sample.end) for sample in AnnotationFile(path)] == times
    count = f"{len(times)} samples are" if len(times) > 1 else "1 sample is"
    assert f"{count} in {path}" in capsys.readouterr().err


def test_a_language_model_has_its_say(
    games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def clean(self, title, sentences):
        self.counts["keep"] += len(sentences)
        return sentences

    monkeypatch.setattr(Curator, "clean", clean)
    monkeypatch.setattr(Curator, "live_share", lambda self, clip: 0.9 if clip.start else 0.8)
    path = tmp_path / "train_with_seeks.jsonl"
    options = ["--endpoint", "http://127.0.0.1:1/v1", "--model", "judge", "--live-share", "0.8"]
    assert annotate.main([str(games), str(path), *options]) == 0
    assert [sample.start for sample in AnnotationFile(path)] == [12]
    assert "sentences: 36 keep, 0 edit, 0 delete" in capsys.readouterr().err


def test_without_an_answer_nothing_is_written(
    games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def clean(self, title, sentences):
        raise EndpointError("http://127.0.0.1:1/v1 gave no answer.")

    monkeypatch.setattr(Curator, "clean", clean)
    path = tmp_path / "train_with_seeks.jsonl"
    assert annotate.main([str(games), str(path), "--endpoint", "http://127.0.0.1:1/v1", "--model", "judge"]) == 2
    assert "gave no answer" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--annealing", "--stride", "3"], "svlm: --annealing makes clips without overlap"),
        (["--model", "judge"], "svlm: --model and --live-share are about the language model"),
        (["--endpoint", "http://127.0.0.1:1/v1"], "needs the --model there"),
        (["--stride", "0"], "expected positive seconds"),
        (["--words", "9"], "holds no samples: no chunk of"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    assert annotate.main([str(games), str(tmp_path / "x.jsonl"), *options]) == 2
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said
