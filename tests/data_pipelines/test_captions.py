"""Captions by models, tested with small ones saved as transformers saves them: their words are random."""

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
    CLIPImageProcessor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    GPT2Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from data_pipelines.captioners.transformers import TransformersCaptioner
from data_pipelines.manifest import ClipRow, read_rows
from tests.data_pipelines.conftest import Curate

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat", "runs", "jumps", "red", "fence", "over"]
PLAIN = ("shots=none", "filter=none", "drop_exact_duplicates=false", "until=caption")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SMALL, "image_size": 32, "patch_size": 16}
PICTURE = {"height": 32, "width": 32}


def tokenizer() -> BertTokenizerFast:
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return BertTokenizerFast(tokenizer_object=words)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 64}
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    config = BlipConfig(text_config={**text, **ids}, vision_config=VISION, projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size=PICTURE), tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GIT: one transformer over the tokens of the picture and of the caption."""
    folder = tmp_path_factory.mktemp("git")
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    config = GitConfig(vision_config=VISION, vocab_size=len(WORDS), max_position_embeddings=64, **SMALL, **ids)
    model = GitForCausalLM(config)
    model.output.bias.data[:5] = -10  # or the caption may end before it begins
    model.save_pretrained(folder)
    GitProcessor(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=PICTURE), tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ViT and GPT-2, whose folders have an image processor and a tokenizer and nothing for both."""
    folder = tmp_path_factory.mktemp("encoder_decoder")
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    decoder = GPT2Config(vocab_size=len(WORDS), n_positions=64, n_embd=16, n_layer=2, n_head=2, **ids)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), decoder)
    model = VisionEncoderDecoderModel(config)
    for part in (model.config, model.generation_config):
        part.decoder_start_token_id, part.pad_token_id, part.eos_token_id = 2, 0, 3
    model.save_pretrained(folder)
    ViTImageProcessor(size=PICTURE).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_git_says_what_its_model_says_and_goes_on_from_a_prompt(git: Path) -> None:
    video = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
    model, processor = GitForCausalLM.from_pretrained(git).eval(), GitProcessor.from_pretrained(git)

    def expected(prompt: str) -> str:
        """As transformers' documentation asks GIT: the prompt begins with [CLS] and does not end."""
        pixels = processor(images=video[1], return_tensors="pt")["pixel_values"]
        ids = torch.tensor([[2, *processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]]])
        tokens = model.generate(pixel_values=pixels, input_ids=ids, max_new_tokens=6, do_sample=False)
        return processor.batch_decode(tokens[:, ids.shape[1] :], skip_special_tokens=True)[0].strip()

    plain = TransformersCaptioner(str(git), max_new_tokens=6, num_beams=1)(video)
    prompted = TransformersCaptioner(str(git), prompt="a red dog", max_new_tokens=6, num_beams=1)(video)

    assert plain == expected("") != ""
    assert prompted == expected("a red dog") != ""


def test_encoder_decoder_says_what_its_model_says_and_takes_no_prompt(encoder_decoder: Path) -> None:
    video = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
    model = VisionEncoderDecoderModel.from_pretrained(encoder_decoder).eval()
    pixels = ViTImageProcessor.from_pretrained(encoder_decoder)(images=video[1], return_tensors="pt")["pixel_values"]
    tokens = model.generate(pixel_values=pixels, max_new_tokens=6, num_beams=2, do_sample=False)
    expected = " ".join(WORDS[token] for token in tokens[0] if token > 3)

    assert TransformersCaptioner(str(encoder_decoder), max_new_tokens=6, num_beams=2)(video) == expected != ""
    with pytest.raises(ValueError, match="prompt='a': VisionEncoderDecoderModel takes none"):
        TransformersCaptioner(str(encoder_decoder), prompt="a")


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
