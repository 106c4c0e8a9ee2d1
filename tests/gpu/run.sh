#!/usr/bin/env bash
# run.sh: what only a GPU can show, from .carry/, which prepare.sh filled; in the project's root on the machine that has
# one. No step stops another; what all print stands in $OUT/all.log. Two calls of less than ten minutes each, by default
# the first: STEPS="machine tests uni train predict", STEPS="machine equal exact encoders reading".
set -u
export WORK=$(mktemp -d) OUT=${OUT:-gpu_out}
mkdir -p "$OUT"
if [ -z "${NO_WHEELS:-}" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --target "$WORK/site" .carry/wheels/*.whl || exit 1
  export PYTHONPATH=$WORK/site
fi
export PYTHONPATH=$PWD:$PWD/models:$PWD/.carry:${PYTHONPATH:-} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 NO_COLOR=1 COLUMNS=140
export DEVICE=${DEVICE:-cuda} SECONDS_A_PART=${SECONDS_A_PART:-8}
export COLON=".carry/data/colon.tif --spots .carry/data/colon_spots.csv --um-per-px 0.966"
export ENCODER=${ENCODER:-uni}
export HER2ST="--dataset HER2ST --root .carry/data/her2st --allow-partial --encoder $ENCODER --weights $WORK/weights.safetensors"
genedml() { python3 -c 'from genedml_cli.app import main; main()' "$@"; }
benchmark() { genedml benchmark $COLON --device $DEVICE --seconds $SECONDS_A_PART ${MAX_SPOTS:+--max-spots $MAX_SPOTS} "$@"; }
export -f genedml benchmark
step() { # name, seconds, command
  local name=$1 limit=$2 code=0 began=$SECONDS
  [[ " ${STEPS:-machine tests uni train predict} " == *" $name "* ]] || return 0
  timeout $((limit * ${PATIENCE:-1})) bash -c "$3" >"$WORK/$name.log" 2>&1 || code=$?
  echo "== $name: exit $code, $((SECONDS - began)) s" | tee -a "$OUT/all.log"
  cat "$WORK/$name.log" >>"$OUT/all.log"
  tail -n "${TAIL:-20}" "$WORK/$name.log"
}
step machine 60 'nvidia-smi; genedml doctor; python3 tests/gpu/pieces.py weights $ENCODER $WORK/weights.safetensors'
step encoders 100 'python3 tests/gpu/pieces.py encode uni uni2-h virchow2 h-optimus-0 lunit-dino-s16'
step tests 150 'python3 -m pytest -m gpu -q -p no:cacheprovider --durations=5 $(grep -l "mark\.gpu" tests/test_*.py)'
step uni 90 'benchmark --encoder uni --preset HER2ST --neighbors lattice -o $OUT/uni.json'
step exact 90 'benchmark --encoder uni --preset HER2ST --neighbors exact --max-spots 1000 -o $OUT/exact.json'
step reading 40 'python3 tests/gpu/pieces.py read .carry/data/colon.tif'
step train 120 '
time genedml train $HER2ST --preset ${PRESET:-HER2ST} --neighbors lattice --set training.epochs=${EPOCHS:-3} --device $DEVICE \
  --out $WORK/run --features $WORK/features'
step predict 120 '
python3 tests/gpu/pieces.py twice .carry/data/colon.tif .carry/data/colon_spots.csv $WORK
for call in first second; do
  time genedml predict $WORK/two.tif --spots $WORK/two.csv --um-per-px 0.966 --model $WORK/run \
    --weights $WORK/weights.safetensors --device $DEVICE --force -o $WORK/two.h5ad
done
python3 tests/gpu/pieces.py again $WORK/run $WORK/weights.safetensors $WORK'
step equal 150 '
for device in $DEVICE cpu; do time genedml predict $COLON --device $device -o $WORK/$device.h5ad; done
time genedml predict $COLON --device $DEVICE -o $WORK/again.h5ad
python3 - <<P
import anndata, numpy as np
first, cpu, again = (anndata.read_h5ad(f"$WORK/{name}.h5ad").X for name in ("$DEVICE", "cpu", "again"))
print("largest difference $DEVICE - cpu:", np.abs(first - cpu).max(), "of a spread of", cpu.std())
print("largest difference of two runs on $DEVICE:", np.abs(first - again).max())
P'
