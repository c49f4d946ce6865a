"""What the box is, in a few lines for the operator: address, models with their proof, key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployment.releases import current, verified

LABELS = {
    "mean_cosine": "cosine",
    "top10_overlap": "top-10 overlap",
    "spearman": "rank correlation",
    "top1_agreement": "top-1 agreement",
}


def lines(root: Path, state: Path, models: Path, address: str) -> list[str]:
    """The recap's lines; `address` is what the box listens on, as HOST:PORT."""
    host, port = address.rsplit(":", 1)
    digest = current(root)
    where = f"http://{'VM' if host == '0.0.0.0' else host}:{port}"
    if host == "127.0.0.1":
        where += f"  (from your desk: ssh -L {port}:127.0.0.1:{port} VM)"
    recap = [f"The box answers: {where}"]
    recap += [line for link in ("emb", "rerank") for line in _model(models / link)]
    recap.append(f"API key:    {state / 'secrets' / 'api_key'} (on the VM, as root)")
    recap.append(f"Deployment: {digest}" + (", verified" if digest == verified(state) else ", NOT verified"))
    return recap


def _model(folder: Path) -> Iterator[str]:
    manifest = json.loads((folder / "manifest.json").read_text())
    kind = "Embedding:" if manifest["kind"] == "embedding" else "Reranker: "
    yield f"{kind}  {manifest['profile']['name']} ({manifest['profile']['licence']}), {_size(manifest)}"
    figures = [f"{label} {manifest['gate'][key]:.3f}" for key, label in LABELS.items() if key in manifest["gate"]]
    yield f"            proven on this VM against its float original: {', '.join(figures)}"
    yield f"            {manifest['recipe']['name']}: {manifest['recipe']['reason']}"


def _size(manifest: dict[str, Any]) -> str:
    sizes, speed = manifest["sizes"], manifest.get("speed") or {}
    if manifest["file"] == "model.onnx" or not sizes.get("int8_bytes"):
        return f"{sizes['float_bytes'] / 1e6:.0f} MB, float"
    text = f"{sizes['int8_bytes'] / 1e6:.0f} MB INT8 (float {sizes['float_bytes'] / 1e6:.0f} MB)"
    return text + (f", {1 / speed['time_ratio']:.1f} times as fast" if speed.get("time_ratio") else "")
