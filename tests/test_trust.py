"""What comes from outside is read in few places, each of which bounds it and runs none of it."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.models.pretrained import save_clip, save_t5
from vdm.models.component_config import check_component
from vdm.models.pretrained.schedulers import settings
from vdm.models.text_encoders import PretrainedTextEncoder

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for package in ("vdm", "data_pipelines") for path in (ROOT / package).rglob("*.py"))

READERS = {
    # The gate, and what it is made of
    "vdm/outside.py": {"json.loads", "yaml.load", "yaml.parse"},
    "vdm/json_values.py": {"json.loads"},
    "vdm/records.py": {"json.loads"},
    # Of this project's own, each held to a shape where it is read
    "vdm/checkpoints/pieces.py": {"json.loads", "safe_open"},
    "vdm/lock_files.py": {"json.loads"},
    "vdm/data/quarantine.py": {"json.loads"},
    "vdm/evaluation/feature_cache.py": {"safe_open"},  # numbers of the user's own cache, or made again
    "vdm/training/peer_connections.py": {"json.loads"},  # of processes that know the run's secret
    "data_pipelines/write_shard.py": {"json.loads"},  # of a part that this command wrote
    # Configurations of the user's own, as text on their way to other processes
    "data_pipelines/stages/caption.py": {"json.loads"},
    "data_pipelines/stages/cut.py": {"json.loads"},
    "data_pipelines/stages/measure.py": {"json.loads"},
    "data_pipelines/encode/frozen.py": {"json.loads"},
    "data_pipelines/encode/texts.py": {"safe_open"},
    # Between a loader worker and the process that started it, over their own pipe, as multiprocessing does
    "vdm/data/delivery.py": {"pickle.loads"},
    # Weights, as safetensors
    "vdm/models/pretrained/stored.py": {"safe_open"},
    # Libraries that read folders of their own form, after ``check_component``
    "vdm/models/diffusers_autoencoders.py": {"from_pretrained"},
    "vdm/models/svd/components.py": {"from_pretrained"},
    "vdm/models/clip_vision.py": {"from_pretrained"},
    "vdm/models/text_encoders.py": {"from_pretrained"},
    "vdm/training/planning/structure.py": {"from_pretrained"},
    "vdm/evaluation/extractors/transformers_models.py": {"from_pretrained"},
    "vdm/evaluation/extractors/clip.py": {"from_pretrained"},
    # Autoencoder and text encoder of Wan's authors: tensors alone
    "vdm/models/pickled_tensors.py": {"torch.load"},
    # Networks of metrics, at paths that the user named: code, tensors alone, and an array
    "vdm/evaluation/extractors/torchscript.py": {"torch.jit.load"},
    "vdm/evaluation/extractors/videomae_v2.py": {"torch.load"},
    "vdm/evaluation/extractors/c3d.py": {"np.load"},
    "data_pipelines/captioners/transformers.py": {"from_pretrained"},
    # Names in a configuration, which ``allowed_modules`` and ``check_foreign`` hold back; and this project's own source
    "vdm/config/targets.py": {"import_module"},
    "vdm/config/static_signatures.py": {"import_module", "eval"},
    "vdm/cli/commands.py": {"import_module"},
    "vdm/training/planning/structure.py ": {"import_module"},
    "vdm/training/strategies/deepspeed.py": {"import_module"},
}
"""Where content from outside may become values, by which calls."""
WATCHED = {
    *("json.load", "json.loads", "yaml.load", "yaml.safe_load", "yaml.parse", "OmegaConf.load", "tomllib.load"),
    *(
        "torch.load",
        "torch.jit.load",
        "load_file",
        "safe_open",
        "np.load",
        "from_pretrained",
        "pickle.load",
        "pickle.loads",
    ),
    *("import_module", "__import__", "eval", "exec", "os.system", "os.popen"),
}
"""Calls that make values, or more, of content."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            dotted = ast.unparse(node.func)
            last = dotted.rpartition(".")[2]
            is_method = "." in dotted and last in ("eval", "exec")  # as of a module in torch
            if dotted in WATCHED or (last in WATCHED and not is_method):
                yield dotted if dotted in WATCHED else last, node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_content_becomes_values_only_where_that_is_guarded(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    allowed = READERS.get(name, set()) | READERS.get(f"{name} ", set())
    assert {call for call, _ in calls(path)} <= allowed


def test_no_listed_reader_is_missing() -> None:
    found = {(str(path.relative_to(ROOT)), call) for path in SOURCES for call, _ in calls(path)}
    assert found == {(name.strip(), call) for name, listed in READERS.items() for call in listed}


def test_libraries_are_never_to_run_code_of_what_they_load() -> None:
    for path in SOURCES:
        for call, node in calls(path):
            if call != "from_pretrained":
                continue
            told = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if re.match(r"Auto(Config|Tokenizer|Model|Processor|ImageProcessor)", ast.unparse(node.func)):
                assert told["trust_remote_code"] == "False", f"{path}:{node.lineno}"
            assert told.get("trust_remote_code", "False") == "False"


def test_libraries_never_unpickle() -> None:
    for path in SOURCES:
        for call, node in calls(path):
            told = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if call == "torch.load":
                assert told["weights_only"] == "True", f"{path}:{node.lineno}"
            if call == "np.load":
                assert told["allow_pickle"] == "False", f"{path}:{node.lineno}"


def test_nothing_imports_pickle_to_read_it() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            used = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"} & set(names)
            assert not used or str(path.relative_to(ROOT)) == "vdm/data/delivery.py", path


def changed(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"num_layers": 10**7}, "num_layers"),
        ({"d_model": "16"}, "d_model"),
        ({"d_ff": 10**12}, "d_ff"),
        ({"num_heads": {"_target_": "os.system"}}, "num_heads"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config"),
    ],
    ids=str,
)
def test_a_published_part_of_impossible_size_is_one_line(tmp_path: Path, changes: dict[str, object], key: str) -> None:
    changed(save_t5(tmp_path) / "config.json", **changes)
    with pytest.raises(ValueError, match=rf"config\.json: {key}=.* is not allowed") as caught:
        PretrainedTextEncoder(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_pipe_in_a_published_part_is_not_waited_for(tmp_path: Path, name: str) -> None:
    (save_t5(tmp_path) / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=r"not a (regular )?file|holds no tokenizer"):
        PretrainedTextEncoder(str(tmp_path))


def test_an_adapter_does_not_lead_to_another_folder(tmp_path: Path) -> None:
    save_clip(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(ValueError, match=r"adapter_config\.json: an adapter"):
        check_component(tmp_path)


def test_code_of_a_text_encoder_is_neither_run_nor_asked_about(tmp_path: Path) -> None:
    folder = save_t5(tmp_path / "t5")
    for file, kind in (("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")):
        changed(folder / file, auto_map={kind: "own.Own", "AutoModel": "own.Own"})
    changed(folder / "tokenizer_config.json", tokenizer_class="OwnTokenizer")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    script = f"from vdm.models.text_encoders import PretrainedTextEncoder as P\nP({str(folder)!r})"
    # Its standard input would answer a question with yes.
    done = subprocess.run(
        [sys.executable, "-c", script], input="y\n" * 10, capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert "[y/N]" not in done.stdout + done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"beta_start": {"_target_": "os.mkdir", "path": "made"}},
        {"beta_end": "0.02"},
        {"beta_start": -1},
        {"num_train_timesteps": 10**12},
        {"num_train_timesteps": True},
        {"rescale_betas_zero_snr": "no"},
        {"set_alpha_to_one": 2},
        {"steps_offset": [1]},
        {"beta_schedule": {"_target_": "os.mkdir"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_published_scheduler_says_plain_values_alone(changes: dict[str, object]) -> None:
    (key,) = changes
    with pytest.raises(ValueError, match=rf"^file: {key}=") as caught:
        settings(changes, "file")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_no_pickle(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    from vdm.models.pretrained.stored import StoredTensors

    with pytest.raises(ValueError, match=r"not a whole safetensors file"):
        StoredTensors.open([tmp_path / "a.safetensors"])
