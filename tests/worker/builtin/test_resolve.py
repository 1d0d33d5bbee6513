"""A model's name means a folder, and finding it costs no import."""

import subprocess
import sys
from pathlib import Path

import pytest

from berth_worker.builtin import BUILTIN_MODELS, resolve


def test_the_builtin_model_is_a_checkpoint_folder() -> None:
    folder = resolve("berth-tiny")
    assert folder == BUILTIN_MODELS["berth-tiny"]
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}
    assert wanted <= {path.name for path in folder.iterdir()}


def test_a_directory_is_itself(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["berth-huge", "", "/no/such/folder"])
def test_anything_else_names_what_there_is(name: str) -> None:
    with pytest.raises(ValueError, match="berth-tiny"):
        resolve(name)


def test_resolving_and_the_recall_items_need_no_torch() -> None:
    program = (
        "import sys\n"
        "import berth_worker.builtin, berth_worker.builtin.dialogues, berth_worker.builtin.recall\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})
