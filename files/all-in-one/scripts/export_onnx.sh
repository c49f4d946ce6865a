#!/usr/bin/env bash
# Export an embedding model and a reranker to ONNX: OUT_DIR/emb and OUT_DIR/rerank, each with model.onnx, tokenizer.json
# and config.json. Values come from the environment or as KEY=VALUE arguments, which win.
set -euo pipefail

usage() {
  cat <<'END'
usage: export_onnx.sh [EMBED_MODEL=NAME] [RERANK_MODEL=NAME] [OUT_DIR=DIR] [VENV=DIR] [PYTHON=FILE]

  EMBED_MODEL   embedding model         (default intfloat/multilingual-e5-small; empty: none)
  RERANK_MODEL  reranker                (default jinaai/jina-reranker-v2-base-multilingual; empty: none)
  OUT_DIR       folder to write to      (default ./models)
  VENV          environment of the exporter, made when missing (default ~/.cache/onebox/venv-modelbuild)
  PYTHON        interpreter to make it with (default python3)

NAME is a hub name (owner/name, or owner/name@commit), a local folder, or a demo model: demo-multilingual-e5-small,
demo-reranker. HF_TOKEN and HF_ENDPOINT are passed on to the hub's client.
END
}

fail() {
  echo "error: $*" >&2
  exit 1
}

payload="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"

for argument in "$@"; do
  case "$argument" in
    -h | --help) usage; exit 0 ;;
    EMBED_MODEL=*) EMBED_MODEL="${argument#*=}" ;;
    RERANK_MODEL=*) RERANK_MODEL="${argument#*=}" ;;
    OUT_DIR=*) OUT_DIR="${argument#*=}" ;;
    VENV=*) VENV="${argument#*=}" ;;
    PYTHON=*) PYTHON="${argument#*=}" ;;
    *) usage >&2; fail "'$argument' is not one of the KEY=VALUE arguments above." ;;
  esac
done

embed_model="${EMBED_MODEL-intfloat/multilingual-e5-small}"
rerank_model="${RERANK_MODEL-jinaai/jina-reranker-v2-base-multilingual}"
out_dir="${OUT_DIR:-./models}"
venv="${VENV:-$HOME/.cache/onebox/venv-modelbuild}"
python="${PYTHON:-python3}"

refuse_releases() {
  local target
  target="$(realpath -m "$1")"
  case "$target/" in
    */releases/*)
      fail "$1 is $target, below releases/, where proven models are kept that nobody changes. Choose another OUT_DIR," \
        "or build a new release with: python -m modelbuild build --profile FILE --activate"
      ;;
  esac
}

make_venv() {
  local lock="$payload/modelbuild/requirements.txt" wanted
  wanted="$(sha256sum "$lock" | cut -d ' ' -f 1)"
  if [[ -x "$venv/bin/python" && "$(cat "$venv/.lock-sha256" 2>/dev/null)" == "$wanted" ]]; then
    return
  fi
  command -v "$python" >/dev/null || fail "PYTHON: $python was not found. Install Python 3.11 or newer."
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "PYTHON: $python is $("$python" --version); the exporter needs Python 3.11 or newer."
  "$python" -c 'import torch' 2>/dev/null ||
    fail "$python has no PyTorch. Install the CPU version first, either from Debian or Ubuntu" \
      "(sudo apt-get install python3-torch python3-venv), or into an environment of your own whose Python you name" \
      "as PYTHON=FILE."
  echo "Making the exporter's environment in $venv" >&2
  rm -rf "$venv"
  "$python" -m venv --system-site-packages "$venv"
  "$venv/bin/python" -m pip install --quiet --require-hashes --no-deps --requirement "$lock"
  link_torch
  printf '%s\n' "$wanted" >"$venv/.lock-sha256"
}

# An environment made from another one sees the base interpreter's packages, not the other environment's.
link_torch() {
  "$venv/bin/python" -c 'import torch' 2>/dev/null && return
  "$python" -c 'import site; print("\n".join(site.getsitepackages()))' \
    >"$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')/torch.pth"
  "$venv/bin/python" -c 'import torch' || fail "PyTorch of $python cannot be used from $venv."
}

export_model() {
  local kind="$1" model="$2" target="$3"
  [[ -n "$model" ]] || return 0
  echo "Exporting $model to $target" >&2
  PYTHONPATH="$payload" "$venv/bin/python" -m modelbuild.standalone "$kind" "$model" "$target"
}

refuse_releases "$out_dir/emb"
refuse_releases "$out_dir/rerank"
make_venv
export_model embedding "$embed_model" "$out_dir/emb"
export_model reranker "$rerank_model" "$out_dir/rerank"
echo "Done: $out_dir. Next, with $venv/bin/python:" >&2
echo "  $payload/scripts/quantize_onnx.py --in $out_dir/emb --out $out_dir/emb --per_channel" >&2
echo "  $payload/scripts/verify_onnx.py emb $out_dir/emb" >&2
