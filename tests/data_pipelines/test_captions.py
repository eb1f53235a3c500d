"""Captions by a model, tested with a small BLIP saved as transformers saves it: its words are random."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

from data_pipelines.captioners.transformers import TransformersCaptioner
from data_pipelines.manifest import ClipRow, read_rows
from tests.data_pipelines.conftest import Curate

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat", "runs", "jumps", "red", "fence", "over"]
PLAIN = ("shots=none", "filter=none", "drop_exact_duplicates=false", "until=caption")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 64}
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    vision = {**small, "image_size": 32, "patch_size": 16}
    config = BlipConfig(text_config={**text, **ids}, vision_config=vision, projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, BertTokenizerFast(tokenizer_object=tokenizer)).save_pretrained(folder)
    return folder


def test_caption_is_what_the_model_says_of_the_middle_frame(blip: Path) -> None:
    captioner = TransformersCaptioner(str(blip), max_new_tokens=6, num_beams=1)
    video = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)

    said = captioner(video)

    model = BlipForConditionalGeneration.from_pretrained(blip).eval()
    processor = BlipProcessor.from_pretrained(blip)
    inputs = processor(images=video[2], return_tensors="pt")
    expected = processor.decode(model.generate(**inputs, max_new_tokens=6)[0], skip_special_tokens=True)
    assert said == expected.strip() != ""
    assert set(said.split()) <= set(WORDS)


def test_model_captions_what_nobody_wrote_about(blip: Path, videos: Path, tmp_path: Path, run_curate: Curate) -> None:
    (videos / "a.txt").write_text("written by hand")
    options = ("captioner=transformers", f"captioner.name_or_path={blip}", "captioner.max_new_tokens=6")

    def captions(*overrides: str) -> dict[str, tuple[str, str]]:
        outcome = run_curate(f"input={videos}", *PLAIN, *options, *overrides)
        assert outcome.code == 0, outcome.err
        rows, _ = read_rows(tmp_path / "shards.work/manifests/caption.parquet", ClipRow)
        return {row.source: (row.caption, row.caption_from) for row in rows}

    first = captions()
    assert first["a.mp4"] == ("written by hand", "annotation")
    assert first["b.mp4"][1] == str(blip)
    assert set(first["b.mp4"][0].split()) <= set(WORDS)
    assert first["b.mp4"][0]

    assert captions("recaption=true")["a.mp4"][1] == str(blip)


def test_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name_or_path: can't load a captioning model from ") as error:
        TransformersCaptioner(str(tmp_path))

    assert "\n" not in str(error.value)
